"""A teacher behind an API that reads completions (`teacher.endpoint` with `teacher.top_k`): for each of their tokens it
gives the k most likely ones and their log-probabilities.

It is sent token ids, so it must have the student's tokenizer; the first answer's texts are compared with the student's.
Answers are kept in the user's cache as they arrive, so a run that was killed, and the next epoch, ask for none twice.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any

import torch
from torch import Tensor

from distilsql.distill.top_tokens import TopTokens
from distilsql.errors import ModelError
from distilsql.models.tree import Branch, PromptTree
from distilsql.runs.recipe import Recipe
from distilsql.synthesis.teacher.asker import Answers, Cost, Replied, Reply
from distilsql.synthesis.teacher.endpoint import Endpoint
from distilsql.training.sources.endpoint import answers_file, open_endpoint, within_budget


class RemoteTeacher:
    """What the API's model gives the tokens of completions, as rows that `head` reads."""

    def __init__(self, recipe: Recipe, tokenizer: Any, vocabulary_size: int, endpoint: Endpoint) -> None:
        assert recipe.teacher is not None
        assert recipe.top_k is not None
        self.head = TopTokens(recipe.top_k)
        self._tokenizer, self._vocabulary_size, self._endpoint = tokenizer, vocabulary_size, endpoint
        self._budget = recipe.teacher.endpoint_budget
        self._answers = Answers(answers_file(recipe), endpoint, self._budget)
        self._is_checked = False

    @classmethod
    def of(cls, recipe: Recipe, tokenizer: Any, vocabulary_size: int) -> "RemoteTeacher | None":
        """None where no endpoint is asked to read. Raises ModelError for an address that is none."""
        if recipe.top_k is None or recipe.teacher is None or recipe.teacher.endpoint is None:
            return None
        return cls(recipe, tokenizer, vocabulary_size, open_endpoint(recipe))

    def read(self, tree: PromptTree, branches: Sequence[Branch]) -> Tensor:
        """Rows (N, 2k) for the branches' tokens, branch after branch.

        Raises:
            ModelError: the endpoint gives no answer, or not what is asked; its tokenizer is another one; or the budget
                is spent.
        """
        prompts = [(*tree.prefix, *tree.questions[branch.question]) for branch in branches]
        tokens = [[*prompt, *branch.tokens] for prompt, branch in zip(prompts, branches, strict=True)]
        lengths = [len(branch.tokens) for branch in branches]
        asked = [
            ["top_logprobs", self.head.k, each, length] for each, length in zip(tokens, lengths, strict=True)
        ]

        def ask(numbers: Sequence[int], replied: Replied) -> None:
            asking = [partial(self._ask, tokens[number], lengths[number]) for number in numbers]
            self._endpoint.ask_each(asking, lambda place, reply: replied(numbers[place], reply))

        with within_budget(self._budget):
            texts = self._answers.once(asked, ask, [Cost(len(each) + 1, len(each) + 1) for each in tokens])
        rows = [row for (text,) in texts for row in json.loads(text)]
        return torch.tensor(rows, dtype=torch.float32)

    def _ask(self, tokens: Sequence[int], completion_tokens: int, stop: Event) -> Reply:
        given = self._endpoint.top_logprobs(tokens, self.head.k, stop)
        if not self._is_checked:
            self._check_tokenizer(tokens, given)
        rows = [self._row(one) for one in given[len(tokens) - completion_tokens :]]
        return Reply((json.dumps(rows),), len(tokens) + 1)

    def _row(self, given: Mapping[str, Any] | None) -> list[float]:
        """The k most likely tokens: an answer also has the one that stands there, if it is none of them."""
        found = sorted(((one["logprob"], int(token)) for token, one in (given or {}).items()), reverse=True)
        top = found[: self.head.k]
        if len(top) < self.head.k or any(token >= self._vocabulary_size for _, token in top):
            raise ModelError(
                f"The endpoint gives {len(found)} tokens of its vocabulary where the {self.head.k} most likely of the "
                f"student's {self._vocabulary_size:,} are asked for. Serve a model with the student's tokenizer, and "
                f"as many logprobs (vLLM: --max-logprobs {self.head.k}), or lower teacher.top_k."
            )
        return [float(token) for _, token in top] + [float(logp) for logp, _ in top]

    def _check_tokenizer(self, tokens: Sequence[int], given: Sequence[Mapping[str, Any] | None]) -> None:
        """Raises ModelError where a token is another text to the endpoint than to the student. Parts of characters,
        which each side shows in its own way, are not compared."""
        for token, one in zip(tokens, given, strict=True):
            theirs = (one or {}).get(str(token), {}).get("decoded_token")
            own = self._tokenizer.decode([token])
            if theirs is not None and own.isascii() and theirs.strip() != own.strip():
                raise ModelError(
                    f"The endpoint reads token {token} as {theirs!r} and the student's tokenizer as {own!r}: they have "
                    "different tokenizers, and teacher.top_k compares token by token. Use seqkd, or a teacher of the "
                    "student's family."
                )
        self._is_checked = True
