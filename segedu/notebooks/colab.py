"""What lets a chapter open on Colab: a badge in its title, and a cell that installs segedu."""

import re

from segedu.errors import InputError

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"

BOOTSTRAP = """\
# On Colab this installs segedu and leaves the torch that is there; anywhere else it does nothing.
import sys
from importlib.metadata import version
from importlib.util import find_spec

if "google.colab" in sys.modules and find_spec("segedu") is None:
    import subprocess
    from pathlib import Path

    pins = [f"{name}=={version(name)}\\n" for name in ("torch", "torchvision")]
    Path("constraints.txt").write_text("".join(pins))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt"]
    subprocess.run([*command, "segedu[chapters] @ git+REPOSITORY"], check=True)
"""


def badge(chapter: str, repository: str) -> str:
    """Markdown of an image that opens `chapter` of the course at `repository` on Colab.

    Raises:
        InputError: If `repository` is not on GitHub, the only place that Colab opens.

    Example:
        >>> badge("01_first", "https://github.com/a/b").split("(")[-1]
        'https://colab.research.google.com/github/a/b/blob/main/course/01_first.ipynb)'
    """
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", repository)
    if not match:
        raise InputError(
            f"the repository is {repository!r}; expected https://github.com/OWNER/NAME"
        )
    page = f"https://colab.research.google.com/github/{match[1]}/blob/main/course/{chapter}.ipynb"
    return f"[![Open in Colab]({BADGE})]({page})"


def bootstrap(repository: str) -> str:
    """Source of the first code cell, which makes `import segedu` work on Colab."""
    return BOOTSTRAP.replace("REPOSITORY", repository).rstrip()
