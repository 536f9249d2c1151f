"""The process that serves: a socket of its own, uvicorn, and an orderly end on Ctrl-C and SIGTERM."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from distilsql.errors import RunError
from distilsql.interrupt import stopping_when

log = logging.getLogger(__name__)
# How long answers under way may take once the server is asked to stop.
_LAST_ANSWERS_S = 10
_LOOK_EVERY_S = 0.1
_MOST_CONNECTIONS = 512


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one), before any slow work.

    Raises:
        RunError: the port is taken, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise RunError(
            f"{host} is no address that can be listened on ({error}); give another --host."
        ) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        bound.close()
        cure = "give another --port, or stop what listens there" if error.errno == errno.EADDRINUSE else ""
        cure = cure or "give another --host or --port"
        raise RunError(f"{host} port {port} cannot be listened on ({error.strerror}): {cure}.") from error
    return bound


def url_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class _Server(uvicorn.Server):
    """Signals are the command's, which says what it waits for."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _hushed(when: Callable[[], bool]) -> Iterator[None]:
    """Without uvicorn's messages `when` it is stopped at once: the traceback of every cancelled task."""
    uvicorn_log = logging.getLogger("uvicorn.error")

    def is_heard(record: logging.LogRecord) -> bool:
        return not when()

    uvicorn_log.addFilter(is_heard)
    try:
        yield
    finally:
        uvicorn_log.removeFilter(is_heard)


def serve(app: ASGIApp, bound: socket.socket, *, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal asks to stop; answers in progress are sent first.

    Raises:
        KeyboardInterrupt: a signal has stopped it.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        ws="none",
    )
    server = _Server(config)

    async def run() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[bound]))
        while not serving.done():
            if server.started:
                ready_once()
            server.should_exit = server.should_exit or stop.requested
            await asyncio.sleep(_LOOK_EVERY_S)
        await serving

    said = False

    def ready_once() -> None:
        nonlocal said
        if not said:
            said = True
            ready()

    with stopping_when("the answers under way are sent") as stop, _hushed(lambda: stop.requested):
        asyncio.run(run())
    if stop.requested:
        raise KeyboardInterrupt
