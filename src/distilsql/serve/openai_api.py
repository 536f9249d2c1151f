"""The OpenAI API: `/v1/models` and `/v1/chat/completions`, streamed or not.

The last user message is the question, the system messages are its evidence (background knowledge that it needs);
earlier turns are ignored, because the model was trained on single questions. The content is the SQL that the model
writes; it is not run. Greedy unless a temperature is given.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from distilsql.errors import DistilSQLError
from distilsql.inference.asker import AskedQuestion
from distilsql.models.generate import uniform_stream
from distilsql.serve.guard import error_body
from distilsql.serve.service import Service
from distilsql.serve.writer import Writing

_MOST_CHARACTERS = 4000
_HALF_A_CHARACTER = "\ufffd"


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What is read of a request; `n` above 1, tools and log-probabilities are refused, other keys have no effect."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=100)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None


def openai_routes(app: FastAPI, service: Service) -> None:
    created = int(service.started_s)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service.name, created)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        if name != service.name:
            return _unknown(name, service)
        return JSONResponse(_model(service.name, created))

    @app.post("/v1/chat/completions")
    async def complete(request: ChatRequest) -> Response:
        if request.model != service.name:
            return _unknown(request.model, service)
        question = next((each.text for each in reversed(request.messages) if each.role == "user"), "").strip()
        evidence = " ".join(each.text for each in request.messages if each.role in ("system", "developer"))
        if not question or len(question) + len(evidence) > _MOST_CHARACTERS:
            return _refusal(f"The last user message is the question: 1 to {_MOST_CHARACTERS:,} characters.")
        asked = await service.prompt(question, evidence=evidence)
        chat = _Chat(service, request, asked)
        if not request.stream:
            return JSONResponse(await chat.whole())
        # Begun before the first byte is sent, so that what cannot be begun has a status of its own.
        return StreamingResponse(chat.stream(chat.begin()), media_type="text/event-stream")


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "distilsql"}


def _unknown(name: str, service: Service) -> Response:
    return _refusal(
        f"There is no model {name!r} here; this server has {service.name!r}.", 404, "model_not_found"
    )


def _refusal(message: str, status: int = 400, code: str | None = None) -> Response:
    body = error_body("/v1/", status, message)
    body["error"]["code"] = code
    return JSONResponse(body, status)


class _Chat:
    """One request under way."""

    def __init__(self, service: Service, request: ChatRequest, asked: AskedQuestion) -> None:
        self._service, self._request, self._asked = service, request, asked
        self._id, self._created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self._told: asyncio.Queue[int] = asyncio.Queue()

    def begin(self) -> Writing:
        """Raises Overloaded."""
        request, loop = self._request, asyncio.get_running_loop()
        seed = request.seed if request.seed is not None else uuid.uuid4().int >> 65
        return self._service.write(
            self._asked,
            max_new_tokens=request.max_completion_tokens or request.max_tokens,
            temperature=request.temperature or 0.0,
            stream=uniform_stream(seed),
            told=lambda token: loop.call_soon_threadsafe(self._told.put_nowait, token),
        )

    async def whole(self) -> dict[str, Any]:
        completion = await self._service.written(self.begin())
        message = {"role": "assistant", "content": self._text(completion), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": self._reason(completion), "logprobs": None}
        return self._envelope("chat.completion", [choice]) | {"usage": self._usage(len(completion))}

    async def stream(self, writing: Writing) -> AsyncIterator[str]:
        """Server-sent events: the role, text as it is written, why it ended, and the usage if it was asked for."""
        try:
            yield self._event({"role": "assistant", "content": ""})
            tokens: list[int] = []
            sent = ""
            waiting = asyncio.ensure_future(self._service.written(writing))
            while not (waiting.done() and self._told.empty()):
                told = asyncio.ensure_future(self._told.get())
                await asyncio.wait([waiting, told], return_when=asyncio.FIRST_COMPLETED)
                if not told.done():
                    told.cancel()
                    continue
                tokens.append(told.result())
                text = self._text(tokens)
                # A character may take several tokens: its first ones are held back.
                if text.startswith(sent) and not text.endswith(_HALF_A_CHARACTER) and text != sent:
                    yield self._event({"content": text[len(sent) :]})
                    sent = text
            try:
                completion = await waiting
            except DistilSQLError as error:
                yield f"data: {json.dumps(error_body('/v1/', 503, str(error)))}\n\n"
                return
            if (rest := self._text(completion)[len(sent) :]) != "":
                yield self._event({"content": rest})
            yield self._event({}, self._reason(completion))
            if self._request.stream_options and self._request.stream_options.include_usage:
                chunk = self._envelope("chat.completion.chunk", []) | {"usage": self._usage(len(completion))}
                yield f"data: {json.dumps(chunk)}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            writing.done.cancel()  # of a reader who has gone; what is finished stays so

    def _event(self, delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return f"data: {json.dumps(self._envelope('chat.completion.chunk', [choice]))}\n\n"

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._service.name,
            "choices": choices,
        }

    def _text(self, tokens: tuple[int, ...] | list[int]) -> str:
        return str(self._service.decoder.tokenizer.decode(tokens, skip_special_tokens=True))

    def _reason(self, completion: tuple[int, ...]) -> str:
        return "stop" if completion[-1] == self._service.decoder.tokenizer.eos_token_id else "length"

    def _usage(self, completion_tokens: int) -> dict[str, int]:
        prompt_tokens = self._asked.prompt_tokens
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
