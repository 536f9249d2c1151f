"""A teacher behind an OpenAI-compatible API (`teacher.endpoint`): it writes queries, is asked once, and each is run.

Every answer is kept in the user's cache as it arrives, so a run that was killed or is started over asks for none twice.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilsql.data.benchmark import Benchmark, SqlBenchmark
from distilsql.databases.normalise import normalise_sql, without_comments
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.url import DIALECTS
from distilsql.databases.written_sql import query_in
from distilsql.errors import ModelError
from distilsql.files import default_cache_folder
from distilsql.inference.prepare import Prepared, PromptTokens, TokenizedExample
from distilsql.metrics.query_check import queries_that_run
from distilsql.runs.recipe import Recipe
from distilsql.synthesis.teacher.asker import Answers, Asker, BudgetSpent, Request
from distilsql.synthesis.teacher.endpoint import Endpoint
from distilsql.training.window_tree import WindowTree

_WRITE = (
    "Write one {dialect} query that answers the question, which stands last. Answer with the query alone."
)
_ANSWER = "Answer the instruction."


def open_endpoint(recipe: Recipe) -> Endpoint:
    """The API that the recipe names. Raises ModelError for an address that is none."""
    assert recipe.teacher is not None
    return Endpoint(
        str(recipe.teacher.endpoint),
        recipe.teacher.path,
        instead="train on a teacher that is loaded (no teacher.endpoint)",
    )


def answers_file(recipe: Recipe) -> Path:
    """Where a model's answers are kept, for each seed its own: with another one it is asked anew."""
    assert recipe.teacher is not None
    asked = json.dumps([recipe.teacher.endpoint, recipe.teacher.path, recipe.seed])
    folder = default_cache_folder() / "teacher-answers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.jsonl"


@contextmanager
def within_budget(budget: int | None) -> Iterator[None]:
    """Raises ModelError where the budget of tokens is spent."""
    try:
        yield
    except BudgetSpent as error:
        raise ModelError(
            f"teacher.endpoint_budget = {budget:,} tokens is spent before all is answered. What was answered is kept: "
            "start again with a larger budget (--overwrite, for it is another recipe), or train on fewer questions "
            "(data.train_limit)."
        ) from error


class EndpointTeacher:
    """Writes the completions of training examples, in the student's tokens."""

    def __init__(
        self, recipe: Recipe, tokenizer: Any, benchmark: Benchmark, prepared: Prepared, asker: Asker
    ) -> None:
        assert recipe.teacher is not None
        self._recipe, self._tokenizer, self._benchmark, self._prepared = (
            recipe,
            tokenizer,
            benchmark,
            prepared,
        )
        self._tokens = PromptTokens(tokenizer)
        self._budget = recipe.teacher.endpoint_budget
        self._answers = Answers(answers_file(recipe), asker, self._budget)

    @property
    def _temperature(self) -> float:
        """An endpoint searches no beams: greedy decoding stands for the mode (ASSUMED)."""
        return 0.0 if self._recipe.teacher_beams > 1 else self._recipe.generation.temperature

    def written(self, batches: Sequence[Sequence[WindowTree]]) -> list[dict[str, Any]]:
        """Records of what the teacher writes for some batches; `is_kept` is False of what does not run, or is longer
        than a completion may be.

        Raises:
            ModelError: the endpoint gives no answer, or the budget is spent.
        """
        start = time.perf_counter()
        examples = [example for batch in batches for item in batch for example in item.examples]
        with within_budget(self._budget):
            answers = self._answers.ask([self._request(example) for example in examples])
        texts = {
            example.example.example_id: self._text_of(example, answer[0])
            for example, answer in zip(examples, answers, strict=True)
        }
        run = set(texts)
        if isinstance(self._benchmark, SqlBenchmark):
            with ExecutionPool() as pool:
                run = queries_that_run(texts, self._benchmark, pool)
        seconds = (time.perf_counter() - start) / max(len(examples), 1)
        return [self._record(example, texts, run, seconds) for example in examples]

    def _record(
        self, example: TokenizedExample, texts: dict[str, str], run: set[str], seconds: float
    ) -> dict[str, Any]:
        name = example.example.example_id
        tokens = (*self._tokens.plain(texts[name]), int(self._tokenizer.eos_token_id))
        fits = len(tokens) <= self._recipe.prompt.max_completion_tokens
        return {
            "example_id": name,
            "text": texts[name],
            "tokens": list(tokens),
            "seconds": seconds,
            "is_kept": fits and name in run,
        }

    def _text_of(self, example: TokenizedExample, answer: str) -> str:
        if not isinstance(self._benchmark, SqlBenchmark):
            return answer.strip()
        engine = self._prepared.engine_of(example)
        return normalise_sql(without_comments(query_in(answer).sql, engine), engine)

    def _request(self, example: TokenizedExample) -> Request:
        prompt = (*self._prepared.prefixes[example.prefix_key], *example.question)
        task = _ANSWER
        if isinstance(self._benchmark, SqlBenchmark):
            task = _WRITE.format(dialect=DIALECTS[self._prepared.engine_of(example)])
        text = self._tokenizer.decode(prompt, skip_special_tokens=True)
        messages = ({"role": "system", "content": task}, {"role": "user", "content": text})
        return Request(messages, temperature=self._temperature)
