import subprocess
import sys
import time
from types import SimpleNamespace

import psutil

from segedu.notebooks import memory
from segedu.notebooks.memory import PeakMemory

FILL = "block = b'1' * 200_000_000; print('full', flush=True); input()"


def test_the_memory_of_a_process_counts_after_it_has_ended():
    with PeakMemory() as peak:
        command = [sys.executable, "-c", FILL]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "full\n"
            time.sleep(3 * memory.PAUSE)
            process.communicate("\n")
        time.sleep(2 * memory.PAUSE)
    assert 200_000_000 < peak.bytes < 400_000_000


def test_a_process_that_ends_while_it_is_looked_at_has_no_memory(monkeypatch):
    class Ended:
        def children(self, **_):
            return [self]

        def memory_info(self):
            raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil, "Process", Ended)
    assert memory._resident() == 0


def test_the_libraries_that_all_processes_map_count_once(monkeypatch):
    class Process:
        def __init__(self, rss=0, shared=0):
            self.memory = SimpleNamespace(rss=rss, shared=shared)

        def children(self, **_):
            return [Process(700, 300), Process(500, 310), Process(90, 0)]

        def memory_info(self):
            return self.memory

    monkeypatch.setattr(psutil, "Process", Process)
    assert memory._resident() == 400 + 190 + 90 + 310
