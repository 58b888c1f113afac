"""The subcommand `predict`: from a checkpoint and pictures to masks."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from segedu.cli.app import app
from segedu.cli.form import command

Checkpoint = Annotated[Path, typer.Argument(help="A checkpoint of `segedu train`.")]


@command(app, "predict")
def predict(
    checkpoint: Checkpoint,
    image: Annotated[Path, typer.Argument(help="A picture of any size, or a folder of pictures.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for mask and overlay.")
    ] = Path(),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    views: Annotated[
        list[float] | None,
        typer.Option(help="A scale at which to look, also mirrored; several are averaged."),
    ] = None,
) -> None:
    """Write the mask of a picture, and the picture with the mask laid over it.

    Of a folder, each picture; what is there already is left, and what fails is told in one line.
    Pictures of more than 33 million pixels are read and written in strips, as TIFF.
    """
    from segedu.predict import load_trained, predict_file

    trained = load_trained(checkpoint, device=device, views=views or ())
    if not image.is_dir():
        for path in predict_file(trained, image, out):
            print(path)
        return

    from tqdm import tqdm

    from segedu.batch import fingerprint, pictures_in, predict_folder

    made_by = fingerprint(checkpoint, views=views or [])
    pictures = pictures_in(image)
    done = failed = 0
    outcomes = predict_folder(trained, pictures, out, made_by=made_by)
    for outcome in tqdm(outcomes, total=len(pictures), unit="picture", file=sys.stderr):
        done += outcome.done
        failed += bool(outcome.failure)
        if outcome.failure:
            tqdm.write(f"segedu: {outcome.failure}", file=sys.stderr)
    there = len(pictures) - done - failed
    print(f"{done} predicted, {there} there already, {failed} failed; in {out}")
    if failed:
        raise typer.Exit(1)
