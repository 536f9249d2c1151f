"""A GGUF file asked through llama.cpp (package `xllamacpp`), by token ids, so that nothing but the weights differs."""

import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from distilsql.errors import ModelError

_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Written:
    """What llama.cpp wrote greedily, EOS included if it ended so, and the log-probability of each token but EOS."""

    tokens: tuple[int, ...]
    logps: tuple[float, ...]


def is_installed() -> bool:
    return importlib.util.find_spec("xllamacpp") is not None


class LlamaCpp:
    """A context manager: the file at `path`, loaded. It answers `at_once` requests together, each in a context of
    `context_tokens`. Raises ModelError where llama.cpp cannot load it."""

    def __init__(
        self, path: Path, *, context_tokens: int, threads: int, eos_token_id: int, at_once: int = 1
    ) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = context_tokens * at_once
        parameters.n_parallel = at_once
        parameters.n_gpu_layers = 0
        parameters.warmup = False
        parameters.verbosity = -1
        parameters.port = 0
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
        try:
            self._server: Any = xllamacpp.Server(parameters)
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(f"llama.cpp cannot load {path}: {error}.") from error
        self._eos_token_id = eos_token_id

    def __enter__(self) -> "LlamaCpp":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server = None

    def tokens_of(self, text: str) -> tuple[int, ...]:
        """The text's tokens by llama.cpp's tokenizer, without BOS."""
        found = self._post("tokenize", {"content": text, "add_special": False, "parse_special": True})
        return tuple(found["tokens"])

    def write(self, prompt: Sequence[int], most_tokens: int, *, with_logps: bool = True) -> Written:
        """A greedy completion of the tokens of `prompt`. Raises ModelError where llama.cpp refuses."""
        answer = self._post(
            "completion",
            {
                "prompt": list(prompt),
                "n_predict": most_tokens,
                "temperature": 0.0,
                "samplers": ["temperature"],
                "repeat_penalty": 1.0,
                "n_probs": 1 if with_logps else 0,
                "post_sampling_probs": False,
                "cache_prompt": True,
                "return_tokens": True,
                "stream": False,
            },
        )
        tokens = [int(token) for token in answer["tokens"]]
        logps = [float(each["logprob"]) for each in answer.get("completion_probabilities", [])]
        ended = answer.get("stop_type") == "eos" and (not tokens or tokens[-1] != self._eos_token_id)
        return Written((*tokens, self._eos_token_id) if ended else tuple(tokens), tuple(logps[: len(tokens)]))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """llama.cpp's own interface, which is the one that takes and gives token ids. Raises ModelError."""
        request = urllib.request.Request(
            f"{self._server.listening_address}/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ModelError(
                f"llama.cpp did not answer: {error.read().decode(errors='replace')[:300]}"
            ) from error
