import subprocess
import sys
from types import SimpleNamespace

import psutil

from segedu.notebooks import memory

FILL = "block = b'1' * 200_000_000; print('full', flush=True); input()"
WATCH = f"""
import subprocess, sys, time
from segedu.notebooks.memory import PAUSE, PeakMemory
with PeakMemory() as peak:
    command = [sys.executable, "-c", {FILL!r}]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "full\\n"
        while peak.bytes < 200_000_000:
            time.sleep(PAUSE)
        process.communicate("\\n")
    time.sleep(2 * PAUSE)
print(peak.bytes)
"""


def test_the_memory_of_a_process_counts_after_it_has_ended():
    # This process may have other tests' children, which come and go: one of its own watches.
    watched = subprocess.run(
        [sys.executable, "-c", WATCH], capture_output=True, text=True, check=True, timeout=60
    )
    assert 200_000_000 < int(watched.stdout) < 240_000_000


def test_a_process_that_ends_while_it_is_looked_at_has_no_memory(monkeypatch):
    class Ended:
        def children(self, **_):
            return [self]

        def memory_info(self):
            raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil, "Process", Ended)
    assert memory._resident() == 0


def test_pages_that_several_processes_have_in_common_count_once(monkeypatch):
    class Process:
        def __init__(self, **memory):
            self.memory = SimpleNamespace(**memory)

        def children(self, **_):
            return [Process(rss=700, pss=450), Process(rss=500, pss=250), Process(rss=90)]

        def memory_full_info(self):
            return self.memory

    monkeypatch.setattr(psutil, "Process", Process)
    assert memory._resident() == 450 + 250 + 90
