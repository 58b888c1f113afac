"""The data sets by name: what there is, where it is, and how to open it.

Needs no torch before `load`, so that `segedu data list` is quick.
"""

import difflib
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pooch

from segedu.data.manifests import manifest
from segedu.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One data set of the catalogue.

    Attributes:
        name: What `load` calls it.
        title: One line that says what it shows.
        num_classes: How many classes its masks have.
        splits: What `load` accepts as `split`.
        loader: The class that reads it, as MODULE:CLASS within `segedu.data`.
        drawn: The scenes' length and seed for each split; empty for sets that are files.
    """

    name: str
    title: str
    num_classes: int
    splits: tuple[str, ...]
    loader: str
    drawn: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What `segedu data list` says about one set.

    Attributes:
        name: What `load` calls it.
        title: One line that says what it shows.
        present: How many of its files are there.
        total: How many files the whole set has; 0 for a set that is drawn on demand.
        licence: What one may do with it.
        where: Its folder, if it has one.
    """

    name: str
    title: str
    present: int
    total: int
    licence: str
    where: Path | None


_TRAIN_VAL, _TRAIN_VAL_TEST = ("train", "val"), ("train", "val", "test")
ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Entry(
                name="scenes",
                title="Scenes: textured objects of 5 kinds, drawn on demand",
                num_classes=6,
                splits=_TRAIN_VAL_TEST,
                loader="scenes:Scenes",
                drawn={"train": (1024, 0), "val": (128, 1), "test": (256, 2)},
            ),
            Entry("camvid", "CamVid: street scenes", 11, _TRAIN_VAL_TEST, "camvid:CamVid"),
            Entry("pets", "Pets: cats and dogs", 2, _TRAIN_VAL, "pets:Pets"),
            Entry("nuclei", "Nuclei: cell nuclei, one by one", 2, _TRAIN_VAL, "nuclei:Nuclei"),
            Entry("membranes", "Membranes: cells in slices", 2, _TRAIN_VAL, "membranes:Membranes"),
            Entry("tiles", "Tiles: defects of magnetic tiles", 6, _TRAIN_VAL, "tiles:Tiles"),
            Entry("coco", "COCO: objects in photographs", 81, _TRAIN_VAL, "coco:Coco"),
            Entry("bsds", "BSDS500: outlines by people", 2, _TRAIN_VAL_TEST, "bsds:Bsds"),
        )
    }
)
"""All data sets, by name."""


def load(name: str, *, split: str = "train", root: Path | None = None, **drawn: Any) -> Any:
    """The data set `name`: a torch `Dataset` of sample dicts, with `classes`.

    Args:
        name: One of `ENTRIES`.
        split: One of the entry's `splits`.
        root: The folder that holds the sets, each in a folder of its own name; `data_root()` if
            None.
        drawn: Further arguments of a set that is drawn on demand, such as the `size` of scenes.

    Raises:
        InputError: If there is no such set or split, or its files are not there.
    """
    entry = find(name)
    if split not in entry.splits:
        raise InputError(f"{name} has no split {split!r}; choose one of: {', '.join(entry.splits)}")
    if not entry.drawn:
        folder = where(name, root)
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such folder; `segedu data get {name}` downloads the set, or set "
                f"SEGEDU_DATA to the folder that holds {name}/"
            )
    module, loader = entry.loader.split(":")
    make = getattr(importlib.import_module(f"segedu.data.{module}"), loader)
    if entry.drawn:
        length, seed = entry.drawn[split]
        return make(length, seed=seed, **drawn)
    return make(folder, split)


def find(name: str) -> Entry:
    """The entry of the set `name`.

    Raises:
        InputError: If there is none.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    close = difflib.get_close_matches(name.lower(), ENTRIES, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise InputError(f"no data set {name!r}; {meant}choose one of: {', '.join(ENTRIES)}")


def data_root() -> Path:
    """The folder that holds the sets: `SEGEDU_DATA`, or segedu's folder in the user's cache."""
    chosen = os.environ.get("SEGEDU_DATA")
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("segedu"))


def where(name: str, root: Path | None = None) -> Path:
    """The folder of the set `name`, whether or not it is there.

    Raises:
        InputError: If there is no such set, or it has no files.
    """
    if find(name).drawn:
        raise InputError(f"{name}: is drawn on demand and has no files; just load it")
    return (data_root() if root is None else root) / name


def how_many(name: str, root: Path | None = None) -> tuple[int, int]:
    """How many files of the set are there, by their names alone, and how many it has.

    A set that is drawn on demand has (0, 0).
    """
    if find(name).drawn:
        return 0, 0
    whole, folder = manifest(name), where(name, root)
    if not folder.is_dir():
        return 0, whole.files
    found = {
        (Path(parent) / file).relative_to(folder).as_posix()
        for parent, _, files in os.walk(folder)
        for file in files
    }
    return len(found & whole.digests.keys()), whole.files


def available(name: str, root: Path | None = None) -> bool:
    """Whether at least a part of the set can be loaded without a download."""
    return bool(find(name).drawn) or how_many(name, root)[0] > 0


def table(root: Path | None = None) -> list[Row]:
    """One row for each data set."""
    return [_row(entry, root) for entry in ENTRIES.values()]


def _row(entry: Entry, root: Path | None) -> Row:
    """What is known about one set."""
    if entry.drawn:
        return Row(entry.name, entry.title, 0, 0, "MIT, like segedu", None)
    whole, (present, total) = manifest(entry.name), how_many(entry.name, root)
    return Row(entry.name, whole.title, present, total, whole.licence, where(entry.name, root))
