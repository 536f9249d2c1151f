"""A local causal language model that answers requests: the teacher of `distilsql synth --teacher`.

Requests that differ in their last message alone are decoded together, on the tokens that all their prompts begin with.
"""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError

from distilsql.databases.written_sql import is_complete
from distilsql.inference.loading import load_asked
from distilsql.models.batches import first_fit
from distilsql.models.generate import GenerationOptions, Stream, generate_as_they_end, uniform_stream
from distilsql.models.layout_check import attention_window
from distilsql.models.load import check_positions
from distilsql.models.precision import AskedPrecision
from distilsql.models.tree import Completion, PromptTree, prefix_nodes
from distilsql.models.tree_model import PrefixState
from distilsql.synthesis.teacher.asker import Message, Replied, Reply, Request, lines_said

log = logging.getLogger(__name__)

MAX_ANSWER_TOKENS = 200
# Completions that are decoded together, at most.
ROWS = 64
PREFIXES = 4  # that are kept

Tokens = tuple[int, ...]


class LocalWriter:
    """A transformers folder, a hub name, or an embedded model. Instruction-tuned models are asked by their chat
    template.

    A request has the same answers alone and among others, but for rounding.
    """

    is_remote = False
    max_answer_tokens = MAX_ANSWER_TOKENS

    def __init__(self, path: str, *, precision: AskedPrecision = "auto") -> None:
        """Raises ModelError where nothing can be loaded, or a model whose distribution would be another one here."""
        self._path = path
        self._model, self._tokenizer, size = load_asked(path, precision, longest_tokens=MAX_ANSWER_TOKENS)
        if self._model.can_decode_in("float16"):
            self._model.decode_in("float16")
        self.name = str(Path(path).resolve()) if Path(path).exists() else path
        self._options = GenerationOptions(int(self._tokenizer.eos_token_id), size, MAX_ANSWER_TOKENS)
        self._ends = _end_tokens(self._model.causal_lm)
        self._prefixes: deque[tuple[Tokens, PrefixState]] = deque(maxlen=PREFIXES)

    def ask(self, requests: Sequence[Request], replied: Replied) -> None:
        """Raises ModelError where the model has no positions for a prompt and its answer."""
        prompts = [self._prompt(request.messages) for request in requests]
        self._make_room(max(map(len, prompts), default=0) + MAX_ANSWER_TOKENS)
        for numbers in _batches(requests):
            written: dict[int, dict[int, Completion]] = {number: {} for number in numbers}
            asked = [requests[number] for number in numbers]
            for place, sample, completion in self._write(asked, [prompts[number] for number in numbers]):
                number = numbers[place]
                own = written[number]
                own[sample] = completion
                if len(own) == _rows(requests[number]):
                    completions = [own[sample] for sample in sorted(own)]
                    replied(number, self._reply(requests[number], prompts[number], completions))

    def _write(
        self, requests: Sequence[Request], prompts: Sequence[Tokens]
    ) -> Iterator[tuple[int, int, Completion]]:
        """(place, number of the sample, completion) of requests that are alike, as they end."""
        prefix, state = self._prefix_of(prompts)
        first = requests[0]
        return generate_as_they_end(
            self._model,
            PromptTree(prefix, tuple(prompt[len(prefix) :] for prompt in prompts)),
            replace(self._options, temperature=first.temperature),
            streams=[[_stream(request, sample) for sample in range(_rows(request))] for request in requests],
            prefix=state,
            is_over=lambda tokens: self._is_over(tokens, first),
        )

    def _reply(self, request: Request, prompt: Tokens, written: Sequence[Completion]) -> Reply:
        texts = tuple(map(self._text, written)) * (request.samples // len(written))
        return Reply(texts, len(prompt) + sum(map(len, written)))

    def _is_over(self, tokens: Sequence[int], request: Request) -> bool:
        """Whether all that is read has been written."""
        if tokens[-1] in self._ends:
            return True
        if request.reads == "whole":
            return False
        text = self._text(tokens)
        return is_complete(text) if request.reads == "query" else bool(lines_said(text.rpartition("\n")[0]))

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _prompt(self, messages: Sequence[Message]) -> Tokens:
        """Tokenised as a whole, so that no token depends on what is shared."""
        if not self._tokenizer.chat_template:
            text = "\n\n".join(message["content"] for message in messages) + "\n"
            return tuple(self._tokenizer(text).input_ids)
        try:
            return self._by_template(messages)
        except TemplateError:  # of Gemma, say: it knows no system message
            text = "\n\n".join(message["content"] for message in messages)
            return self._by_template([{"role": "user", "content": text}])

    def _by_template(self, messages: Sequence[Message]) -> Tokens:
        chat = [dict(message) for message in messages]
        prompt = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
        return tuple(prompt["input_ids"])

    def _make_room(self, longest: int) -> None:
        """For sequences of so many tokens. Raises ModelError where the model has no positions for them."""
        warning = check_positions(self._model.causal_lm, longest, self._path)
        if warning:
            log.warning(warning)
        window = attention_window(self._model.causal_lm.config)
        if window is not None and window < longest and self._model.layout == "tree":
            self._model.layout = "padded"  # no tree knows of a window
            log.warning(
                f"{self._path} attends to {window:,} tokens and is asked with {longest:,}, so it answers one "
                "request at a time (slower)."
            )

    def _prefix_of(self, prompts: Sequence[Tokens]) -> tuple[Tokens, PrefixState | None]:
        """Tokens that all prompts begin with, but for the last one of the shortest, and their keys and values. Those at
        hand are taken if that leaves less to run, though they may be fewer."""
        common = _common(prompts)[: min(map(len, prompts)) - 1]
        if self._model.layout == "padded" or not common:
            return common, None
        at_hand = [(len(_common((tokens, common))), state) for tokens, state in self._prefixes]
        shared, kept = max(at_hand, key=lambda each: each[0], default=(0, None))
        if kept is not None and shared and (len(common) - shared) * len(prompts) <= len(common):
            layers = [(key[:, :, :shared], value[:, :, :shared]) for key, value in kept.layers]
            return common[:shared], PrefixState(prefix_nodes(shared), layers)
        with torch.no_grad():
            state = self._model.run_prefix(common)
        self._prefixes.append((common, state))
        return common, state


def _batches(requests: Sequence[Request]) -> Iterator[list[int]]:
    """Numbers of requests that are decoded together: those that differ in their last message and samples alone."""
    alike: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        before = [dict(message) for message in request.messages[:-1]]
        alike.setdefault(json.dumps([before, request.temperature, request.reads]), []).append(number)
    for numbers in alike.values():
        for places in first_fit([_rows(requests[number]) for number in numbers], ROWS):
            yield [numbers[place] for place in places]


def _rows(request: Request) -> int:
    """How many completions are written for it: one, if all would be the same."""
    return request.samples if request.temperature else 1


def _stream(request: Request, sample: int) -> Stream:
    """The random numbers of one sample."""
    said = json.dumps([dict(message) for message in request.messages], sort_keys=True)
    return uniform_stream(int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big"), sample)


def _common(texts: Sequence[Tokens]) -> Tokens:
    """What all begin with."""
    first, last = min(texts), max(texts)  # whatever these two share, those between them do
    length = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:length]


def _end_tokens(causal_lm: Any) -> frozenset[int]:
    """Those that the model ends a turn with beside the tokenizer's EOS, such as Gemma's <end_of_turn>."""
    ends = getattr(getattr(causal_lm, "generation_config", None), "eos_token_id", None)
    return frozenset(ends if isinstance(ends, list) else () if ends is None else (ends,))
