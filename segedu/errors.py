"""The one exception for what a user gave and segedu cannot use."""


class InputError(ValueError):
    """A file or argument that cannot be used.

    Its message is one line that a user can act on: which file or argument, what was found, what was
    expected, and what to do. The `segedu` command prints it and exits with status 1.
    """
