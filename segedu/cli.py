"""The `segedu` command: each subcommand reads its options and calls one function.

Heavy imports stand inside the subcommands, so that `segedu --help` is quick.
"""

import errno
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from segedu import __version__
from segedu.config import TrainConfig
from segedu.errors import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(no_args_is_help=True, help="The annotated images: what there is, and where.")
notebooks_app = typer.Typer(no_args_is_help=True, help="The course's notebooks.")
app.add_typer(data_app, name="data")
app.add_typer(notebooks_app, name="notebooks")

Course = Annotated[Path, typer.Option(help="The folder of the chapters.")]
Chapters = Annotated[
    list[str] | None, typer.Argument(help="Chapter numbers; all if none is given.")
]
SetName = Annotated[str, typer.Argument(help="A name from `segedu data list`.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a user can mend becomes one line on stderr and exit status 1; Ctrl-C becomes 130."""
    try:
        yield
    except InputError as error:
        _fail(str(error))
    except OSError as error:
        hint = "; free some space" if error.errno == errno.ENOSPC else ""
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}{hint}")
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _fail(message: str) -> None:
    print("segedu:", " ".join(message.split()), file=sys.stderr)
    raise typer.Exit(1)


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a subcommand whose errors are one line."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        def guarded(*args: Any, **kwargs: Any) -> None:
            with one_line_errors():
                function(*args, **kwargs)

        guarded.__doc__ = function.__doc__
        guarded.__annotations__ = function.__annotations__
        guarded.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        group.command(name)(guarded)
        return function

    return register


def _settings_as_options(function: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `settings` by one option for each field of `TrainConfig`.

    Names and help come from the dataclass and its `Attributes:` block; an option that is not
    given is None.
    """
    documentation = dict(
        re.findall(r"^ {8}(\w+): (.+?)(?=^ {8}\w+: |\Z)", _attributes(), re.M | re.S)
    )
    own = {k: p for k, p in inspect.signature(function).parameters.items() if k != "settings"}
    options = {
        f.name: inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                f.type | None,  # type: ignore[operator]
                typer.Option(help=" ".join(documentation[f.name].split())),
            ],
        )
        for f in fields(TrainConfig)
    }

    def with_options(**given: Any) -> None:
        settings = {name: given.pop(name) for name in options}
        function(**given, settings={k: v for k, v in settings.items() if v is not None})

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values()]
    with_options.__doc__ = function.__doc__
    with_options.__signature__ = inspect.Signature([*parameters, *options.values()])  # type: ignore[attr-defined]
    with_options.__annotations__ = {p.name: p.annotation for p in [*parameters, *options.values()]}
    return with_options


def _attributes() -> str:
    """The `Attributes:` block of `TrainConfig`, each entry indented by eight spaces."""
    return (TrainConfig.__doc__ or "").partition("Attributes:\n")[2]


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,  # noqa: FBT002
) -> None:
    """Learn image segmentation: the course's data, models, training and notebooks."""
    if version:
        print(f"segedu {__version__}")
        raise typer.Exit


@command(app, "train")
@_settings_as_options
def train(
    data: Annotated[
        str,
        typer.Option(help="A set from `segedu data list`, or a folder with images/ and masks/."),
    ],
    model: Annotated[str, typer.Option(help="The model.")] = "unet",
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Where to keep the run, or the run to go on with. By default runs/DATA-MODEL.pt."
        ),
    ] = None,
    pretrained: Annotated[  # noqa: FBT002
        bool, typer.Option(help="Begin with a backbone trained on ImageNet.")
    ] = False,
    log: Annotated[
        str,
        typer.Option(help="tensorboard or wandb: note each epoch in a folder by the checkpoint."),
    ] = "none",
    settings: dict[str, Any] | None = None,
) -> None:
    """Train a model, keep it in a checkpoint, and score it on the held-out pictures.

    Each set has a recipe; the options below replace single settings of it.
    """
    from segedu.loggers import open_log
    from segedu.plans import prepare

    run = prepare(data, model, settings or {}, pretrained=pretrained)
    if pretrained:
        print(f"backbone: {run.about['begun_from']}")
    path = checkpoint or Path("runs") / f"{Path(data).name}-{model}.pt"
    about = {**run.about, **run.config.record()}
    with open_log(log, path.with_name(f"{path.stem}-log"), about) as note:
        for epoch in run.train(path):
            note(epoch)
            print(
                f"epoch {epoch.number + 1}/{run.config.epochs}  loss {epoch.train_loss:.4f}  "
                f"held-out {run.score_name} {epoch.val_score:.4f}",
                flush=True,
            )
    scores = run.score(path)
    for name, value in scores.parts.items():
        print(f"  {name:<12} {value:.4f}")
    print(f"held-out {scores.name} {scores.whole:.4f} (best epoch); checkpoint: {path}")


@command(app, "models")
def models() -> None:
    """Every model: weights, multiplications, receptive field, and what images it takes."""
    from segedu.models.describe import SIZE, describe_all
    from segedu.models.registry import MODELS

    print(f"{'':<24} {'weights':>9} {f'MACs, {SIZE}':>10}  {'sees':>12}  takes")
    for row in describe_all():
        sees = "regions" if MODELS[row.name].objects else f"{row.receptive_field or 'all'} columns"
        print(
            f"{row.name:<24} {row.parameters / 1e6:7.1f} M {row.macs / 1e9:8.1f} G  {sees:>12}  "
            f"{row.rule}",
            flush=True,
        )


@command(app, "predict")
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of `segedu train`.")],
    image: Annotated[Path, typer.Argument(help="A picture of any size.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for mask and overlay.")
    ] = Path(),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Write the mask of a picture, and the picture with the mask laid over it."""
    from segedu.predict import load_trained, predict_file

    for path in predict_file(load_trained(checkpoint, device=device), image, out):
        print(path)


@command(app, "run")
def run(
    chapters: Chapters = None,
    parameters: Annotated[
        Path | None, typer.Option(help="A YAML file of parameters by chapter.")
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="The folder for executed copies.")
    ] = Path("_build/course"),
    course: Course = Path("course"),
) -> None:
    """Run chapters from a clean state, and print a table of what they took."""
    from segedu.notebooks.run import format_table, run_chapters

    records = []
    try:
        for record in run_chapters(course, chapters or [], parameters_file=parameters, output=out):
            records.append(record)  # noqa: PERF402 - Ctrl-C must keep those that are finished
    finally:
        print(format_table(records))
    if any(record.failure for record in records):
        raise typer.Exit(1)


@command(notebooks_app, "build")
def build(chapters: Chapters = None, course: Course = Path("course")) -> None:
    """Make and run the notebooks from their sources in COURSE/source."""
    from segedu.notebooks.build import build_chapters

    for path in build_chapters(course, chapters or []):
        print(path, flush=True)


@command(data_app, "list")
def data_list() -> None:
    """Every data set, and how much of it is here."""
    from segedu.data.catalog import table

    for row in table():
        here = f"{row.present} of {row.total} files here" if row.total else "drawn on demand"
        print(f"{row.name:<10} {row.title}\n{'':<10} {here}; licence: {row.licence}")


@command(data_app, "get")
def data_get(name: SetName) -> None:
    """Download a data set, check every file of it, and put it in its place."""
    from segedu.data.download import get

    print(get(name))


@command(data_app, "where")
def data_where(name: SetName) -> None:
    """The folder of a data set, whether or not it is there."""
    from segedu.data.catalog import where

    print(where(name))
