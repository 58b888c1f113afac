import os
import resource
from pathlib import Path

import numpy as np
import pytest

from segedu.grading import bounds as module
from segedu.grading.bounds import bounded_memory

GB = 2**30


def take(size):
    return np.empty(size, dtype=np.uint8)


def test_memory_is_bounded_for_a_while():
    with bounded_memory(GB // 4):
        assert take(GB // 16).size
        with pytest.raises(MemoryError):
            take(GB)
    assert take(GB).size


def test_after_an_error_it_is_bounded_no_more():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(KeyError), bounded_memory(GB // 4):
        raise KeyError
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_lower_limit_of_the_process_stays():
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    own = (has + GB // 2, before[1])
    resource.setrlimit(resource.RLIMIT_AS, own)
    try:
        with bounded_memory(8 * GB), pytest.raises(MemoryError):
            take(GB)
        assert resource.getrlimit(resource.RLIMIT_AS) == own
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_where_a_process_cannot_tell_what_it_has_nothing_is_bounded(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "none")
    with bounded_memory(1):
        assert take(GB).size
