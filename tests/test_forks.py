"""The process that new ones are forked from."""

import multiprocessing
import sys
from multiprocessing import forkserver

from segedu import forks
from segedu.processes import run_processes


def loaded():
    return [name in sys.modules for name in forks.LOADED]


def test_the_forkserver_runs_after_the_call_and_only_one_of_it():
    assert forks.get_ready() == "forkserver"
    first = forkserver._forkserver._forkserver_pid
    assert first is not None
    assert forks.get_ready() == "forkserver"
    assert forkserver._forkserver._forkserver_pid == first


def test_processes_begin_with_what_they_need():
    forks.get_ready()
    assert run_processes(loaded, 2) == [[True] * len(forks.LOADED)] * 2


def test_where_the_system_cannot_fork_processes_are_spawned(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    monkeypatch.setattr(forkserver, "ensure_running", None)
    assert forks.get_ready() == "spawn"
