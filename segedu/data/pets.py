"""Pets: photographs of cats and dogs, with the animal, its outline and the background."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from segedu.data.paired import PairedFiles, pairs_by_name
from segedu.data.sample import IGNORE
from segedu.data.splits import held_out, need_files, need_split
from segedu.errors import InputError

CLASSES = ("background", "pet")
WHOLE = {"train": 71, "val": 29}
"""Photographs of each split in the whole public set."""


class Animal(NamedTuple):
    """What a photograph of the set shows.

    Attributes:
        species: "cat" or "dog".
        breed: Such as "Russian Blue"; the names of cat breeds begin with a capital letter.
        breed_number: 1 to 37, over cats and dogs.
    """

    species: str
    breed: str
    breed_number: int


class Pets(PairedFiles):
    """Photographs of one cat or dog each; the border of the animal, a few pixels, is `IGNORE`.

    Args:
        root: The folder that holds `images/NAME.jpg`, `annotations/trimaps/NAME.png` and
            `annotations/list.txt`.
        split: "train", or "val" for one photograph in four, chosen by its name.

    Raises:
        InputError: If there is no such split, or none of its files.

    Source:
        Parkhi et al. 2012, Cats and dogs, https://www.robots.ox.ac.uk/~vgg/data/pets/.
    """

    classes = CLASSES
    codes: Mapping[int, int] = {1: 1, 2: 0, 3: IGNORE}

    def __init__(self, root: Path, split: str = "train") -> None:
        need_split(split, tuple(WHOLE), "Pets")
        pairs = [
            pair
            for pair in pairs_by_name(root / "images", root / "annotations" / "trimaps")
            if held_out(pair.image.stem, one_in=4) == (split == "val")
        ]
        layout = "images/NAME.jpg with an annotations/trimaps/NAME.png"
        need_files(pairs, root, name="pets", split=split, layout=layout)
        super().__init__(pairs)
        self.list_file = root / "annotations" / "list.txt"

    def animals(self) -> list[Animal]:
        """The animal in each photograph, in the order of the samples.

        Raises:
            InputError: If `annotations/list.txt` is not there, or does not name a photograph.
        """
        if not self.list_file.is_file():
            raise InputError(f"{self.list_file}: no such file; `segedu data get pets` downloads it")
        known = dict(
            _animal(line)
            for line in self.list_file.read_text(encoding="utf-8").splitlines()
            if line.strip() and not line.startswith("#")
        )
        missing = [name for name in self.names if name not in known]
        if missing:
            raise InputError(f"{self.list_file}: has no line for {missing[0]}; get the set again")
        return [known[name] for name in self.names]


def _animal(line: str) -> tuple[str, Animal]:
    """The photograph's name and its animal, from `NAME BREED SPECIES BREED-OF-SPECIES`."""
    name, breed_number, species, _ = line.split()
    breed = name.rsplit("_", 1)[0].replace("_", " ")
    return name, Animal({"1": "cat", "2": "dog"}[species], breed, int(breed_number))
