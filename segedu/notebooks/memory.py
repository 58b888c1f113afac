"""How much memory the processes that this one started take at their peak."""

import threading
from types import TracebackType

import psutil

PAUSE = 0.1  # seconds between two looks


class PeakMemory:
    """While it is entered, watches this process's descendants; `bytes` is their peak together.

    It looks ten times a second and adds up resident memory: a shorter peak is missed. What all of
    them have mapped from files, such as torch's libraries, counts once where the system tells.

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
    """Resident memory, in bytes, of all processes that this one has started."""
    own, mapped = 0, 0
    for process in psutil.Process().children(recursive=True):
        try:
            memory = process.memory_info()
        except psutil.Error:  # it has just ended
            continue
        from_files = getattr(memory, "shared", 0)
        own += memory.rss - from_files
        mapped = max(mapped, from_files)
    return own + mapped
