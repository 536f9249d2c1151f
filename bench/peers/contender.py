"""What a contender is given, and what its step says it did."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    """Token ids of an example. The completion ends with EOS. The first `prefix_tokens` of the prompt are shared by the
    rows of a group, which follow each other; programs that compute every prompt by itself ignore them."""

    prompt: Sequence[int]
    completion: Sequence[int]
    prefix_tokens: int = 0

    @property
    def prefix(self) -> tuple[int, ...]:
        return tuple(self.prompt[: self.prefix_tokens])

    @property
    def question(self) -> tuple[int, ...]:
        return tuple(self.prompt[self.prefix_tokens :])


@dataclass(frozen=True)
class Models:
    """Causal LMs of `transformers`, on one device and in one precision; the student is trained in place. Of `tokenizer`
    only the special tokens' ids are read (`eos_token_id` and those that may be None: bos, unk, pad), so a
    `SimpleNamespace` will do. Only contenders that distil need a teacher."""

    student: Any
    teacher: Any = None
    tokenizer: Any = None

    @property
    def device(self) -> torch.device:
        return next(self.student.parameters()).device

    @property
    def vocabulary_size(self) -> int:
        return int(self.student.config.vocab_size)

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)


@dataclass(frozen=True)
class Options:
    """`micro_batch` is the number of rows that a padded forward pass takes (tree and grouped contenders take a group).
    A learning rate of 0 keeps the weights, so that every step does the same work. `bfloat16_autocast` computes in
    bfloat16 what float32 weights hold (TRL alone). A maximal norm of None does not clip."""

    micro_batch: int = 4
    max_new_tokens: int = 128
    learning_rate: float = 0.0
    max_norm: float | None = 1.0
    bfloat16_autocast: bool = False


@dataclass
class Done:
    """One training step, as it was counted where the loss is computed.

    `rows` and `trained_tokens` entered the loss, `positions` went through the student with gradient, padding included.
    `loss` is the mean over `trained_tokens`, as far as the contender says it. `phases` are seconds, `counts` tokens.
    """

    seconds: float = 0.0
    rows: int = 0
    trained_tokens: int = 0
    positions: int = 0
    loss: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


Step = Callable[[Sequence[Row]], Done]


class Stopwatch:
    """Seconds of work on a device, which is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start()

    def start(self) -> None:
        self._wait()
        self._start = time.perf_counter()

    def seconds(self) -> float:
        self._wait()
        return time.perf_counter() - self._start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def groups_of(rows: Sequence[Row]) -> list[list[Row]]:
    """Neighbouring rows with the same prefix."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and groups[-1][0].prefix == row.prefix:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def padded(sequences: Sequence[Sequence[int]], fill: int, *, left: bool = False) -> Tensor:
    """Integers (sequences, longest)."""
    width = max(map(len, sequences))
    lines = [
        [fill] * (width - len(one)) + list(one) if left else list(one) + [fill] * (width - len(one))
        for one in sequences
    ]
    return torch.tensor(lines)
