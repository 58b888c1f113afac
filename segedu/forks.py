"""What new processes have imported when they begin, where the system can fork."""

import multiprocessing
from multiprocessing import forkserver

LOADED = ["segedu.train", "segedu.models.unet", "segedu.data.scenes"]


def get_ready() -> str:
    """Begin, at once and beside what goes on, to import what processes will need.

    They are forked from a process that has imported it; without this call the first of them wait
    for that. Where the system cannot fork nothing happens.

    Returns:
        How processes are to be started: "forkserver" or "spawn".
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(LOADED)
    forkserver.ensure_running()
    return "forkserver"
