"""Is an exported file the model that it was made from? Asked on every question of a benchmark: are the prompts' tokens
the same, how far apart are log-probabilities, and how many queries return what is right, before and after."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from distilsql.data.benchmark import SqlBenchmark
from distilsql.errors import ModelError
from distilsql.export.llama_cpp import LlamaCpp, Written
from distilsql.inference.decoder import answer_all
from distilsql.inference.model import Model
from distilsql.inference.prepare import Prepared, prepare
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.statistics import mcnemar_exact
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tree import Branch, PromptTree
from distilsql.models.tree_model import PrefixState
from distilsql.progress import progress

PREFIX_BYTES = 1024 * 2**20


@dataclass(frozen=True)
class Proof:
    """`questions` were asked of both. Log-probabilities are of the tokens that the file wrote, natural, per token.
    Accuracies are execution accuracies, 0 to 1; `only_original` and `only_exported` count the questions that just one
    has right, `p` is McNemar's exact test on them."""

    benchmark: str
    questions: int
    same_completions: int
    mean_logp_difference: float
    largest_logp_difference: float
    original_accuracy: float
    exported_accuracy: float
    only_original: int
    only_exported: int
    p: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        return (
            f"{self.benchmark}, {self.questions} questions: the original has {100 * self.original_accuracy:.1f} % "
            f"right, the file {100 * self.exported_accuracy:.1f} % ({self.only_original} that only the original has, "
            f"{self.only_exported} that only the file has, p = {self.p:.2g}); {self.same_completions} completions are "
            f"the same; log-probabilities differ by {self.mean_logp_difference:.2g} on the mean, "
            f"{self.largest_logp_difference:.2g} at most."
        )


class Original:
    """What the model itself answers to a benchmark, once for all files."""

    def __init__(self, model: Model, benchmark: SqlBenchmark) -> None:
        self.model, self.benchmark = model, benchmark
        self.prepared: Prepared = prepare(benchmark, model.decoder.tokenizer, model.prompt, training=False)
        texts = {}
        with progress(f"the original answers {benchmark.name}", len(benchmark.examples)) as advance:
            for example, answer in answer_all(model.decoder, self.prepared):
                texts[example.example.example_id] = answer.text
                advance()
        self.answers = [texts[example.example_id] for example in benchmark.examples]
        self.scores = evaluate(self.answers, benchmark)


def prove(original: Original, file: LlamaCpp) -> Proof:
    """Raises ModelError where llama.cpp's tokenizer reads a prompt otherwise."""
    prepared, model = original.prepared, original.model
    check_tokens(original, file.tokens_of)
    answers: dict[str, str] = {}
    apart: list[float] = []
    prefixes = PrefixCache(model.decoder.model, PREFIX_BYTES)
    with progress(f"the file answers {original.benchmark.name}", len(prepared.examples)) as advance:
        for group in prepared.by_prefix():
            for example in group:
                prompt = (*prepared.prefixes[example.prefix_key], *example.question)
                written = file.write(prompt, model.decoder.max_new_tokens)
                answer = model.decoder.answer(written.tokens, "sql", prepared.engine_of(example))
                answers[example.example.example_id] = answer.text
                prefix = prefixes.get(example.prefix_key, prepared.prefixes[example.prefix_key])
                apart += logp_differences(model, prepared.tree([example]), written, prefix)
                advance()
    predictions = [answers[example.example_id] for example in original.benchmark.examples]
    same = sum(one == other for one, other in zip(original.answers, predictions, strict=True))
    scores = evaluate(predictions, original.benchmark)
    pairs = [
        (before.is_correct, after.is_correct)
        for before, after in zip(original.scores.verdicts, scores.verdicts, strict=True)
    ]
    only_original, only_exported = pairs.count((True, False)), pairs.count((False, True))
    return Proof(
        original.benchmark.name,
        len(pairs),
        same,
        statistics.fmean(apart) if apart else 0.0,
        max(apart, default=0.0),
        original.scores.accuracy,
        scores.accuracy,
        only_original,
        only_exported,
        mcnemar_exact(only_original, only_exported),
    )


def check_tokens(original: Original, tokens_of: Callable[[str], tuple[int, ...]]) -> None:
    """Raises ModelError unless another tokenizer reads every prompt of the benchmark as ours does."""
    tokenizer, prepared = original.model.decoder.tokenizer, original.prepared
    parts: dict[Sequence[int], None] = dict.fromkeys(example.question for example in prepared.examples)
    parts |= dict.fromkeys(prepared.prefixes.values())
    for tokens in parts:
        own = tokens[1:] if tokens and tokens[0] == tokenizer.bos_token_id else tokens
        text = tokenizer.decode(own, clean_up_tokenization_spaces=False)
        other = tokens_of(text)
        if tuple(own) != other:
            place = next((n for n, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), len(other))
            raise ModelError(
                f"llama.cpp's tokenizer reads a prompt otherwise, from token {place} on: "
                f"{tokenizer.decode(own[place : place + 5])!r}. The file would answer another question; use the "
                "safetensors."
            )


def logp_differences(
    model: Model, tree: PromptTree, written: Written, prefix: PrefixState | None = None
) -> list[float]:
    """How far the log-probability of each written token is from the model's own, natural, absolute. `prefix` is the
    tree's, already run."""
    if not written.logps:
        return []
    decoder = model.decoder
    tokens = written.tokens[: len(written.logps)]
    with torch.no_grad():
        hidden_ND = decoder.model.completion_hidden(tree, [Branch(0, tokens)], prefix)
        logp_NV = decoder.model.head().log_probs(hidden_ND, decoder.vocabulary_size)
    own = logp_NV[torch.arange(len(tokens)), torch.tensor(tokens)].tolist()
    return [abs(one - other) for one, other in zip(own, written.logps, strict=True)]
