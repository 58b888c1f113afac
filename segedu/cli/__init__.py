"""The `segedu` command: each subcommand reads its options and calls one function.

Heavy imports stand inside the subcommands, so that `segedu --help` is quick. The modules stand in
the order in which the help names their subcommands.
"""

# isort: off
from segedu.cli import learn, deploy, exporting, course, data, measure  # noqa: F401
from segedu.cli import grading, collecting, returning  # noqa: F401

# isort: on
from segedu.cli.app import app

__all__ = ["app"]
