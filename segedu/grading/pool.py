"""Several submissions at once on this machine, each in a process that another one watches."""

import multiprocessing
import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from segedu.grading.job import Job, failed, grade_safely
from segedu.grading.keys import read_key
from segedu.grading.results import Result

TASKS = 20  # that a process does before a fresh one takes its place
TRIES = 2
PATIENCE = 300  # seconds beyond all that the limits allow, before a process is taken to hang


class _Lane:
    """One process that grades; when it dies, another takes its place."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def grade(self, job: Job) -> Result:
        """Grade a submission; if the process dies twice over it, nobody knows its marks."""
        for _ in range(TRIES):
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1,
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_end_with_parent,
                    max_tasks_per_child=TASKS,
                )
            with suppress(BrokenProcessPool):
                return self._pool.submit(grade_in_time, job).result()
            self.close()
        return failed(job, "the process that graded it ended twice; nobody knows its marks")

    def close(self) -> None:
        """End the process once it has done what it does now."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None


def grade_in_time(job: Job) -> Result:
    """`grade_safely`; should that itself hang, this process ends, and another one tries."""
    seconds = float(read_key(job.secret)["limits"]["notebook_seconds"])
    watch = threading.Timer(PATIENCE + 4 * seconds, os._exit, [1])
    watch.daemon = True
    watch.start()
    try:
        return grade_safely(job)
    finally:
        watch.cancel()


def in_processes(jobs: list[Job], count: int) -> Iterator[Result]:
    """Grade in so many processes; when one dies, its own submission alone is tried again."""
    lanes: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
    for _ in range(count):
        lanes.put(_Lane())

    def grade(job: Job) -> Result:
        lane = lanes.get()
        try:
            return lane.grade(job)
        finally:
            lanes.put(lane)

    with ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(grade, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            while not lanes.empty():
                lanes.get().close()


def _end_with_parent() -> None:
    """Should the process that started this one be killed, this one ends, with its sandboxes."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
