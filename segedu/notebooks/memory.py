"""How much memory the processes that this one started take at their peak."""

import threading
from types import TracebackType

import psutil

PAUSE = 0.1  # seconds between two looks


class PeakMemory:
    """While it is entered, watches this process's descendants; `bytes` is their peak together.

    It looks ten times a second and adds up resident memory: a shorter peak is missed. What several
    of them have in common, such as torch's libraries, counts once where the system tells.

    Example:
        >>> with PeakMemory() as peak:
        ...     pass
        >>> peak.bytes >= 0
        True
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(PAUSE):
            self.bytes = max(self.bytes, _resident())


def _resident() -> int:
    """Resident memory, in bytes, of all processes that this one has started.

    Of several, each counts its share of the pages that they have in common, where the system tells
    (Linux); finding that out takes longer.
    """
    started = psutil.Process().children(recursive=True)
    found = 0
    for process in started:
        try:
            if len(started) == 1:
                found += process.memory_info().rss
            else:
                memory = process.memory_full_info()
                found += getattr(memory, "pss", memory.rss)
        except psutil.Error:  # it has just ended
            continue
    return found
