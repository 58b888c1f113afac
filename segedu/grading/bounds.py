"""Memory for what this process makes of a student's values: a small answer may ask for much.

An array of 16 MB, compared with one of 100 numbers, broadcasts to gigabytes. Beyond the bound there
is a MemoryError, which is that answer's; without it the system ends whatever it likes.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MORE = 2 * 2**30
"""Bytes beyond what the process has already."""


@contextmanager
def bounded_memory(more: int = MORE) -> Iterator[None]:
    """For a while, this process may take so much more memory; where that is unknown, any."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    has = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = min([has + more, *(limit for limit in before if limit != resource.RLIM_INFINITY)])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
