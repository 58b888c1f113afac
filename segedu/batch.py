"""A folder of pictures predicted, one after another: what fails is told, what is done is kept."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segedu.data.images import IMAGE_SUFFIXES
from segedu.errors import InputError
from segedu.files import whole_file
from segedu.predict import Trained, outputs, predict_file

STAMP = ".segedu-checkpoint"
"""The file in the output folder that says by which model its files were made."""


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Attributes:
        picture: Its file.
        done: Whether it was predicted now; otherwise it failed, or was there already.
        failure: Why it failed, in one line; empty if it did not.
    """

    picture: Path
    done: bool
    failure: str = ""


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, in the order of their names.

    Raises:
        InputError: If there is none.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise InputError(
            f"{folder}: has no picture; expected files that end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return found


def predict_folder(
    trained: Trained, pictures: list[Path], out: Path, *, made_by: str
) -> Iterator[Outcome]:
    """Predict each picture as `predict_file` does, and yield what became of it.

    A picture whose files are whole and newer than itself is not predicted again: a run that was
    stopped goes on. Files are put in place whole, so a half-written one is never taken for done.

    Args:
        trained: The model.
        pictures: Of different names, but for their endings.
        out: The folder for masks and overlays.
        made_by: What tells this model from another, as `fingerprint` gives it.

    Raises:
        InputError: If `out` holds what another model made.
    """
    _refuse_other_model(out, made_by)
    taken: dict[str, Path] = {}
    for picture in pictures:
        first = taken.setdefault(picture.stem, picture)
        if first != picture:
            yield Outcome(
                picture,
                done=False,
                failure=f"{picture}: its files would have the names of {first.name}'s; rename it",
            )
        elif any(_is_newer(path, picture) for path in outputs(trained, picture, out)):
            yield Outcome(picture, done=False)
        else:
            yield _predicted(trained, picture, out)


def fingerprint(checkpoint: Path, **settings: object) -> str:
    """What tells a checkpoint's bytes, and the settings of predicting, from any others."""
    with checkpoint.open("rb") as file:
        told = hashlib.file_digest(file, "sha256")
    told.update(repr(sorted(settings.items())).encode())
    return told.hexdigest()


def _predicted(trained: Trained, picture: Path, out: Path) -> Outcome:
    """Predict one picture; whatever is wrong with it is not the others' fault."""
    try:
        predict_file(trained, picture, out)
    except InputError as error:
        return Outcome(picture, done=False, failure=str(error))
    except (RuntimeError, MemoryError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:160]
        return Outcome(picture, done=False, failure=f"{picture}: could not be predicted ({reason})")
    return Outcome(picture, done=True)


def _is_newer(path: Path, picture: Path) -> bool:
    """Whether a file is there, and not older than the picture that it was made from."""
    return path.is_file() and path.stat().st_mtime_ns >= picture.stat().st_mtime_ns


def _refuse_other_model(out: Path, made_by: str) -> None:
    """Two models' masks in one folder could not be told apart."""
    stamp = out / STAMP
    if not stamp.is_file():
        with whole_file(stamp) as unfinished:
            unfinished.write_text(made_by, encoding="utf-8")
    elif stamp.read_text(encoding="utf-8") != made_by:
        raise InputError(
            f"{out}: holds what another checkpoint, or other views, made; choose another folder "
            "with -o, or delete this one"
        )
