"""Warnings as errors in a chapter's kernel, but for those of third parties that are named here."""

import warnings

# Modules, as regular expressions, that warn about themselves where a chapter can do nothing.
MODULES = ("asyncio", "ipykernel", "IPython", "jupyter_client", "tornado", "traitlets", "zmq")

# Messages, as regular expressions of their start, with what they come from.
MESSAGES = (
    "__array__ implementation doesn't accept a copy keyword",  # NumPy 2 about torch's tensors
)


def warnings_are_errors() -> None:
    """Make every warning from here on an error, but for those named in `MODULES` and `MESSAGES`."""
    warnings.resetwarnings()
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", ResourceWarning)  # told when memory is freed: any cell's time
    for module in MODULES:
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
    for message in MESSAGES:
        warnings.filterwarnings("ignore", message=message)
