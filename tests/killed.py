"""Workers of a pool that are killed, as by a system without memory."""

import time
from collections.abc import Iterable

import psutil


def kill_workers(process_ids: Iterable[int]) -> None:
    """Returns when they have ended, as their parent sees it. A signal takes a moment, and a worker that dies with a
    statement in its hands has crashed, and is not replaced unseen."""
    killed = [psutil.Process(process_id) for process_id in process_ids]
    for process in killed:
        process.kill()
    while not all(map(_has_ended, killed)):
        time.sleep(0.001)


def _has_ended(process: psutil.Process) -> bool:
    """A process whose first thread is gone lives until its others are."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True
