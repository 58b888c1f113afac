"""What all subcommands share: errors in one line, and settings that become options."""

import errno
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Annotated, Any

import typer

from segedu.config import TrainConfig
from segedu.errors import InputError


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


def settings_as_options(function: Callable[..., None]) -> Callable[..., None]:
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
