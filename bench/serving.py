"""An application on a real socket, for clients that need one."""

import argparse
import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

from distilsql.serve.server import _Server, listen, url_of
from distilsql.threads import COUNT_VARIABLE


def set_threads() -> None:
    """Obey the command line's `--threads`. OpenMP reads it once: call this before torch is imported."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--threads", type=int)
    threads = parser.parse_known_args()[0].threads
    if threads is not None:
        os.environ[COUNT_VARIABLE] = str(threads)


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """Serves `app` on a free port of loopback; yields its URL."""
    import uvicorn

    with listen("127.0.0.1", 0) as bound:
        server = _Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])), daemon=True)
        thread.start()
        try:
            yield url_of(bound)
        finally:
            server.should_exit = True
            thread.join()
