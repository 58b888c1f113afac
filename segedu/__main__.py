"""`python -m segedu` is the `segedu` command."""

from segedu.cli import app

app(prog_name="segedu")
