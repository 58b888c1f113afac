"""The `segedu` command: each subcommand reads its options and calls one function.

Heavy imports stand inside the subcommands, so that `segedu --help` is quick. The modules stand in
the order in which the help names their subcommands.
"""

from segedu.cli import learn, deploy, course, data, measure, grading, collecting  # noqa: F401, I001 - they add their subcommands
from segedu.cli.app import app

__all__ = ["app"]
