"""Continuous batching: questions may arrive at any time, and all completions in progress are decoded together.

A thread of its own holds the model. Between two tokens it removes finished rows and adds waiting questions, which share
the database's prefix, already computed. So a question waits for one step of those before it, not for their completions,
and its answer does not depend on the other questions (except by rounding).

With few rows, a step costs as much as reading the weights, however many tokens it is fed. Then each row is fed a draft
after its next token (`models.lookup`), and keeps the part of it that it would have written itself.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from distilsql.errors import DistilSQLError
from distilsql.models.decoding import Decoding, StockDecoding, start_writing
from distilsql.models.lookup import LONGEST, Lookup
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.token_choice import choose_tokens
from distilsql.models.tree import Completion, PromptTree
from distilsql.models.tree_model import TreeModel
from distilsql.threads import fit_threads

log = logging.getLogger(__name__)
PREFIX_BYTES = 1024 * 2**20
# Tokens of a draft, and the most rows that get one: with more rows, every token that a step is fed costs time.
DRAFTED, MOST_DRAFTED_ROWS = 4, 2
# A draft makes a step about half as long again. While less than this share of drafts is kept, few are tried.
WORTH_KEEPING, TRIED_EVERY = 0.3, 8


class Overloaded(DistilSQLError):
    """The queue is full."""


class Writing:
    """A completion in progress; `done` is its future, which a caller cancels to give up on it.

    `told` is called with each token as it is written, in the writer's thread.
    """

    def __init__(
        self,
        tree: PromptTree,
        max_new_tokens: int,
        temperature: float,
        uniforms: Sequence[float],
        told: Callable[[int], object] | None,
    ) -> None:
        self.tree = tree
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.uniforms = uniforms
        self.told = told
        self.tokens: list[int] = []
        self.done: Future[Completion] = Future()

    def take(self, token: int) -> None:
        self.tokens.append(token)
        if self.told is not None:
            with suppress(RuntimeError):  # the loop that was listening is closed
                self.told(token)

    def read_last(self) -> Sequence[int]:
        """What was written, behind the end of the question: what a draft continues."""
        return (*self.tree.questions[0][-LONGEST:], *self.tokens)

    def finish(self) -> None:
        with suppress(InvalidStateError):
            self.done.set_result(tuple(self.tokens))

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.done.set_exception(error)


class Writer:
    """A context manager. At most `most_rows` completions are written at a time, and `most_waiting` more may wait.
    `drafted` is the longest draft, 0 for none; `accepted` of the `proposed` tokens of drafts were kept so far."""

    def __init__(
        self,
        model: TreeModel,
        *,
        eos_token_id: int,
        vocabulary_size: int,
        most_rows: int = 32,
        most_waiting: int = 64,
        drafted: int = DRAFTED,
    ) -> None:
        self.model = model
        self.most_rows = 1 if model.layout == "padded" else most_rows
        self.most_waiting = most_waiting
        self._eos_token_id = eos_token_id
        self._vocabulary_size = vocabulary_size
        self._prefixes = PrefixCache(model, PREFIX_BYTES)
        self._waiting: deque[Writing] = deque()
        self._rows: list[Writing] = []
        self._decoding: Decoding | StockDecoding | None = None
        self._logp_BV: Tensor | None = None  # of each row's next token
        self._lookup = Lookup()
        self.drafted = drafted if model.layout == "tree" and model.attention == "parts" else 0
        self.accepted = self.proposed = 0
        self._kept_lately, self._untried = 1.0, 0
        self._news = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends after the current step; unfinished completions fail."""
        with self._news:
            self._is_closed = True
            self._news.notify()
        self._thread.join()

    def write(
        self,
        tree: PromptTree,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        uniforms: Sequence[float] = (),
        told: Callable[[int], object] | None = None,
    ) -> Writing:
        """Begin the completion of the one question of `tree`: greedy, or sampled with a uniform number for each token.

        Raises:
            Overloaded: too many wait already.
        """
        writing = Writing(tree, max_new_tokens, temperature, uniforms, told)
        with self._news:
            if self._is_closed:
                raise Overloaded("The server is stopping; ask again when it is back.")
            # Those that nobody waits for any more leave before the next step.
            under_way = sum(not each.done.cancelled() for each in (*self._waiting, *self._rows))
            if under_way >= self.most_rows + self.most_waiting:
                raise Overloaded(f"{under_way} questions are under way already; ask again in a few seconds.")
            self._waiting.append(writing)
            self._news.notify()
        return writing

    # ---- in the writer's thread --------------------------------------------------------------------------

    @torch.no_grad()
    def _work(self) -> None:
        fit_threads(self.model.model)  # of OpenMP, each thread has settings of its own
        while (arrived := self._arrived()) is not None:
            try:
                self._leave([not row.done.cancelled() for row in self._rows])
                if arrived:
                    self._begin(arrived)
                if self._rows:
                    self._step()
            except Exception as error:
                log.warning(f"A batch of {len(self._rows) or len(arrived)} questions failed: {error}")
                for writing in {*self._rows, *arrived}:
                    writing.fail(error)
                self._rows, self._decoding, self._logp_BV = [], None, None
        for writing in [*self._rows, *self._waiting]:
            writing.fail(CancelledError("the server is stopping"))

    def _arrived(self) -> list[Writing] | None:
        """Questions that there is room for now, after waiting for one if nothing is under way; None at the end."""
        with self._news:
            while not (self._waiting or self._rows or self._is_closed):
                self._news.wait()
            if self._is_closed:
                return None
            arrived: list[Writing] = []
            while self._waiting and len(self._rows) + len(arrived) < self.most_rows:
                writing = self._waiting.popleft()
                if not writing.done.cancelled():
                    arrived.append(writing)
            return arrived

    def _begin(self, arrived: list[Writing]) -> None:
        """Run the prompts of new rows, those with the same prefix together, and add them to the batch."""
        by_prefix: dict[tuple[int, ...], list[Writing]] = {}
        for writing in arrived:
            by_prefix.setdefault(writing.tree.prefix, []).append(writing)
        trees = [
            PromptTree(prefix, tuple(question for each in group for question in each.tree.questions))
            for prefix, group in by_prefix.items()
        ]
        prefixes = [self._prefixes.get(tree.prefix, tree.prefix) for tree in trees]
        longest = max(writing.max_new_tokens for writing in arrived)
        decoding, hidden_BD = start_writing(self.model, trees, prefixes, longest)
        logp_BV = decoding.log_probs(hidden_BD, self._vocabulary_size)
        self._rows += [writing for group in by_prefix.values() for writing in group]
        if self.drafted:  # names and values to copy
            for tree in trees:
                for tokens in (tree.prefix, *tree.questions):
                    self._lookup.learn(tokens)
        if self._decoding is None or self._logp_BV is None:
            self._decoding, self._logp_BV = decoding, logp_BV
        else:
            assert isinstance(
                self._decoding, Decoding
            )  # a model in the padded layout writes one row at a time
            assert isinstance(decoding, Decoding)
            self._decoding.join(decoding)
            self._logp_BV = torch.cat([self._logp_BV, logp_BV])

    def _step(self) -> None:
        """One more token of every row, and the accepted part of its draft; finished rows leave."""
        assert self._logp_BV is not None
        tokens = self._chosen(self._rows, self._logp_BV)
        for row, token in zip(self._rows, tokens, strict=True):
            row.take(token)
        goes_on = [self._goes_on(row) for row in self._rows]
        finished = [row for row, stays in zip(self._rows, goes_on, strict=True) if not stays]
        self._leave(goes_on)
        for row in finished:
            if self.drafted:
                self._lookup.learn(row.read_last())
            row.finish()  # now that there is room for another
        if self._rows:
            self._feed()

    def _goes_on(self, row: Writing) -> bool:
        return row.tokens[-1] != self._eos_token_id and len(row.tokens) < row.max_new_tokens

    def _chosen(self, rows: Sequence[Writing], logp_BV: Tensor) -> list[int]:
        """The next token of each of `rows`."""
        tokens = logp_BV.argmax(-1).tolist()
        for number, row in enumerate(rows):
            if row.temperature:
                uniform_B = np.array([row.uniforms[len(row.tokens)]])
                chosen_B = choose_tokens(logp_BV[number : number + 1], row.temperature, uniform_B)
                tokens[number] = int(chosen_B)
        return tokens

    def _feed(self) -> None:
        """Feed each row its last token and a draft after it, and keep what the row would have written itself."""
        decoding, device = self._decoding, self.model.device
        assert decoding is not None
        drafts = self._drafts()
        length = 1 + max(map(len, drafts))
        fed = [
            [row.tokens[-1], *draft] + [0] * (length - 1 - len(draft))
            for row, draft in zip(self._rows, drafts, strict=True)
        ]
        hidden_BLD = decoding.extend(torch.tensor(fed, device=device))
        if length == 1:
            self._logp_BV = decoding.log_probs(hidden_BLD[:, 0], self._vocabulary_size)
            return
        logp_NV = decoding.log_probs(hidden_BLD.flatten(0, 1), self._vocabulary_size)
        logp_BLV = logp_NV.view(len(fed), length, -1)
        kept = [
            self._accept(row, draft, logp_LV)
            for row, draft, logp_LV in zip(self._rows, drafts, logp_BLV, strict=True)
        ]
        kept_B = torch.tensor(kept, device=device)
        self.accepted += sum(kept)
        proposed = sum(map(len, drafts))
        self.proposed += proposed
        self._kept_lately += 0.1 * (sum(kept) / proposed - self._kept_lately)
        decoding.rewind(length - 1 - kept_B)
        self._logp_BV = logp_BLV[torch.arange(len(fed), device=device), kept_B]

    def _drafts(self) -> list[tuple[int, ...]]:
        """A draft for each row, possibly empty; no row is fed more than it may still write."""
        if not self.drafted or len(self._rows) > MOST_DRAFTED_ROWS:
            return [()] * len(self._rows)
        if self._kept_lately < WORTH_KEEPING:
            self._untried += 1
            if self._untried % TRIED_EVERY:
                return [()] * len(self._rows)
        # The shortest of what is left bounds all, since each row is fed as many tokens as the others.
        most = min(self.drafted, *(row.max_new_tokens - len(row.tokens) - 1 for row in self._rows))
        found = [self._lookup.draft(row.read_last(), most) for row in self._rows]
        ends = [draft.index(self._eos_token_id) if self._eos_token_id in draft else most for draft in found]
        return [draft[:end] for draft, end in zip(found, ends, strict=True)]

    def _accept(self, row: Writing, draft: Sequence[int], logp_LV: Tensor) -> int:
        """Accept the tokens of `draft` that `row` would have written itself; returns how many."""
        for place, token in enumerate(draft):
            if self._chosen([row], logp_LV[place : place + 1]) != [token]:
                return place
            row.take(token)
        return len(draft)

    def _leave(self, goes_on: Sequence[bool]) -> None:
        """Continue with these rows only."""
        if all(goes_on):
            return
        kept = torch.tensor([number for number, stays in enumerate(goes_on) if stays], dtype=torch.int64)
        self._rows = [row for row, stays in zip(self._rows, goes_on, strict=True) if stays]
        if not self._rows:
            self._decoding = self._logp_BV = None
            return
        assert self._decoding is not None
        assert self._logp_BV is not None
        kept_B = kept.to(self.model.device)
        self._decoding.keep(kept_B)
        self._logp_BV = self._logp_BV[kept_B]
