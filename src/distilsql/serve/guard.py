"""What every request passes before anything reads it: Host, Origin, key, content type, length; and the headers that
every answer carries. Imports no torch.

A browser on the server's own machine lets any page reach loopback. A foreign page is recognised by its Origin, a page
whose name was rebound to 127.0.0.1 by its Host, and a form that posts across sites by its content type.
"""

import hmac
import ipaddress
import json
import socket
from collections.abc import Collection, Iterable
from typing import Any

import anyio
import psutil
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY_BYTES = 256 * 1024
LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
# The page's own files alone: no script, style or image from elsewhere, nothing inline, no frame around it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# The page itself holds nothing of the database; it asks for the key and sends it with what it asks.
_OPEN_PATHS = ("/", "/health")
_OPEN_BELOW = "/page/"
_WITH_BODY = ("POST", "PUT", "PATCH")
_BODY_S = 30.0


class Refusal(Exception):
    """Why a request goes no further: a status of HTTP and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached only from its own machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str, also: Iterable[str] = ()) -> frozenset[str]:
    """The names that a request to a server bound to `host` may call it by: those of loopback, `host` itself, and where
    that is every address, this machine's name and addresses; and `also`."""
    names = {*LOOPBACK_NAMES, host, *also}
    if host in ("0.0.0.0", "::"):
        names |= {socket.gethostname(), socket.getfqdn()}
        names |= {
            each.address.partition("%")[0] for found in psutil.net_if_addrs().values() for each in found
        }
    return frozenset(name.lower().strip("[]") for name in names)


class Guard:
    """ASGI middleware. `names` are the hosts that it answers to; with `api_key`, everything but the page needs it."""

    def __init__(
        self, app: ASGIApp, *, names: Collection[str], api_key: str = "", most_bytes: int = MOST_BODY_BYTES
    ) -> None:
        self._app, self._names, self._api_key, self._most_bytes = app, names, api_key, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            if scope["method"] in _WITH_BODY:
                receive = _again(await self._body(receive), receive)
        except Refusal as refusal:
            await _answer(refusal, scope["path"], with_headers)
        else:
            await self._app(scope, receive, with_headers)

    def _check(self, scope: Scope) -> None:
        """Raises Refusal."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name_in(host) not in self._names:
            raise Refusal(
                421, f"This server is not called {host!r}; start it with --allow-host to have it so."
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refusal(403, "A page of another origin may not ask here.")
        is_foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        is_a_link = scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        if is_foreign and not is_a_link:
            raise Refusal(403, "A page of another site may not ask here.")
        if self._api_key and not _is_open(scope["path"]):
            kind, _, key = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(key.encode(), self._api_key.encode()):
                raise Refusal(401, "This server needs its API key: send Authorization: Bearer KEY.")
        if scope["method"] in _WITH_BODY:
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise Refusal(415, "Send JSON, with Content-Type: application/json.")
            length = headers.get("content-length", "")
            if length.isdigit() and int(length) > self._most_bytes:
                raise self._too_long()

    async def _body(self, receive: Receive) -> bytes:
        """The whole body. Raises Refusal where it is too long, too slow, or broken off."""
        body = bytearray()
        try:
            with anyio.fail_after(_BODY_S):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refusal(400, "The request was broken off.")
                    body += message.get("body", b"")
                    if len(body) > self._most_bytes:
                        raise self._too_long()
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError as error:
            raise Refusal(408, f"The request took longer than {_BODY_S:.0f} s to arrive.") from error

    def _too_long(self) -> Refusal:
        return Refusal(413, f"A request may have {self._most_bytes:,} bytes.")


def _again(body: bytes, receive: Receive) -> Receive:
    """A receiver that gives `body` first."""
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed


def _name_in(host: str) -> str:
    """`[::1]:80` → `::1`, `localhost:80` → `localhost`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_open(path: str) -> bool:
    return path in _OPEN_PATHS or path.startswith(_OPEN_BELOW)


def error_body(path: str, status: int, message: str) -> dict[str, Any]:
    """A refusal in each interface's format: OpenAI's below /v1."""
    if not path.startswith("/v1/"):
        return {"error": message}
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


async def _answer(refusal: Refusal, path: str, send: Send) -> None:
    body = json.dumps(error_body(path, refusal.status, refusal.message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    # Of what was refused for its length the rest is not read.
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
