"""Endpoint: a model behind an OpenAI-compatible API, which may be busy, broken or slow."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2

from distilsql.at_once import each
from distilsql.errors import ModelError
from distilsql.synthesis.teacher.asker import Replied, Reply, Request, estimated

log = logging.getLogger(__name__)

KEY_VARIABLES = ("DISTILSQL_API_KEY", "OPENAI_API_KEY")
ATTEMPTS = 5
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
TIMEOUT_S = 120.0
MAX_ANSWER_TOKENS = 400
# Requests in flight, unless told otherwise: enough for a server that batches, few enough for one with a strict limit.
AT_ONCE = 8
_WORTH_ANOTHER = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

_Read = TypeVar("_Read")


class _Unanswered(Exception):
    """One attempt gave no answer; `wait_s` is how long the endpoint said to wait, if it did."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Endpoint:
    """`url` is the API's base, such as http://localhost:8000/v1. The key comes from the environment and is neither kept
    nor shown. `at_once` are the most requests in flight. `wait` sleeps between attempts, by default until all is to
    end. `instead` is what to do without it, for messages."""

    is_remote = True
    max_answer_tokens = MAX_ANSWER_TOKENS

    def __init__(
        self,
        url: str,
        model: str,
        *,
        at_once: int = AT_ONCE,
        timeout_s: float = TIMEOUT_S,
        wait: Callable[[float], object] | None = None,
        instead: str = "leave --endpoint out for questions worded without a model",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ModelError(
                f"The endpoint {_shown(url)} is no http(s) address; give one such as http://localhost:8000/v1."
            )
        self.name, self._wait, self._place, self._instead = model, wait, _shown(url), instead
        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._at_once = at_once
        limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        self._client = httpx2.Client(timeout=timeout_s, headers=headers, limits=limits)
        self._base = url.rstrip("/")

    def ask(self, requests: Sequence[Request], replied: Replied) -> None:
        """Raises ModelError where no attempt gives one of them an answer; those in flight then get no other attempt."""
        self.ask_each([partial(self._reply, request) for request in requests], replied)

    def ask_each(self, asking: Sequence[Callable[[threading.Event], Reply]], replied: Replied) -> None:
        """As `ask`; each of `asking` asks for one reply, and is given what is set when all is to end."""
        stop = threading.Event()
        each(
            len(asking),
            lambda number: replied(number, asking[number](stop)),
            at_once=self._at_once,
            stop=stop,
        )

    def _reply(self, request: Request, stop: threading.Event) -> Reply:
        body = {
            "model": self.name,
            "messages": [dict(message) for message in request.messages],
            "n": request.samples,
            "temperature": request.temperature,
            "max_tokens": MAX_ANSWER_TOKENS,
        }
        return self._answered("/chat/completions", body, partial(_texts, request=request), stop)

    def top_logprobs(
        self, tokens: Sequence[int], k: int, stop: threading.Event
    ) -> list[dict[str, Any] | None]:
        """Of each token of a prompt what the model gave the k most likely ones there, as vLLM has it: by token id, each
        with `logprob` and `decoded_token`, the token that stands there among them; None for the first. Raises
        ModelError as `ask` does, and where the endpoint leaves it out."""
        body = {
            "model": self.name,
            "prompt": list(tokens),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": k,
        }
        given = self._answered("/completions", body, _prompt_logprobs, stop)
        if given is None or len(given) != len(tokens):
            raise ModelError(
                f"{self._place} gives no prompt_logprobs for the tokens that it is sent, as vLLM's server does (with "
                f"--max-logprobs of at least {k}): serve '{self.name}' so, or {self._instead}."
            )
        return given

    def _answered(
        self, path: str, body: dict[str, Any], read: Callable[[Any], _Read], stop: threading.Event
    ) -> _Read:
        """Up to `ATTEMPTS` times, waiting longer each time. Raises ModelError then, or at once for what no other
        attempt would change (no permission, no such model), or when `stop` is set."""
        why = ""
        for attempt in range(ATTEMPTS):
            try:
                return self._attempt(path, body, read)
            except _Unanswered as error:
                why = str(error)
                wait_s = FIRST_WAIT_S * 2**attempt if error.wait_s is None else error.wait_s
                log.info(f"{self._place}: {why}; attempt {attempt + 1} of {ATTEMPTS}.")
                if attempt + 1 < ATTEMPTS:
                    (self._wait or stop.wait)(min(wait_s, LONGEST_WAIT_S))
            if stop.is_set():
                break
        raise ModelError(
            f"{self._place} gave no answer in {attempt + 1} attempts ({why}). What it answered before is kept: give "
            f"the same command again when it is well, or {self._instead}."
        )

    def _attempt(self, path: str, body: dict[str, Any], read: Callable[[Any], _Read]) -> _Read:
        try:
            response = self._client.post(self._base + path, json=body)
        except httpx2.TimeoutException as error:
            raise _Unanswered("no answer in time") from error
        except httpx2.HTTPError as error:
            raise _Unanswered(f"no connection ({type(error).__name__})") from error
        if response.status_code in _WORTH_ANOTHER:
            raise _Unanswered(
                f"status {response.status_code}", _retry_after(response.headers.get("retry-after"))
            )
        if response.status_code != 200:
            raise ModelError(
                f"{self._place} refuses requests for the model '{self.name}' (status {response.status_code}). Check "
                f"the address, the model's name, and the key in {KEY_VARIABLES[0]}."
            )
        try:
            return read(response.json())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise _Unanswered("an answer that is not this API's") from error


def _texts(answer: Any, *, request: Request) -> Reply:
    texts = tuple(choice["message"]["content"] for choice in answer["choices"])
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("no text")
    usage = answer.get("usage")
    counted = usage.get("total_tokens") if isinstance(usage, dict) else None
    return Reply(texts, counted if isinstance(counted, int) else estimated(request))


def _prompt_logprobs(answer: Any) -> list[dict[str, Any] | None] | None:
    given: list[dict[str, Any] | None] | None = answer["choices"][0].get("prompt_logprobs")
    return given


def _retry_after(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:  # a date, which few endpoints send
        return None


def _shown(url: str) -> str:
    """The address without a user's name and password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}" if host else url.rpartition("@")[2]
