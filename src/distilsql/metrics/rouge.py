"""ROUGE-L of responses to instructions, as MiniLLM (Gu et al. 2024) and DistiLLM (Ko et al. 2024) compute it.

Per response the F-measure of the longest common subsequence with a reference (Lin 2004), by the `rouge-score` package
with Porter's stemmer, and the largest over the references; then the mean over examples, and over samples where an
instruction was answered several times.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from typing import Any

from distilsql.data.benchmark import InstructBenchmark
from distilsql.errors import DataError
from distilsql.metrics.statistics import bootstrap_interval, paired_bootstrap
from distilsql.progress import progress

METRIC = "ROUGE-L"
# Of the first reference's length, both ends included: the buckets of MiniLLM's results by response length. ASSUMED:
# words, the same for every model. MiniLLM counted tokens: its slice of S-NI "11+" holds references of four words.
LENGTH_BUCKETS: tuple[tuple[str, int], ...] = (("0-5 words", 5), ("6-10 words", 10))
LONGEST_BUCKET = "11 words or more"
BUCKET_NAMES = (*(name for name, _ in LENGTH_BUCKETS), LONGEST_BUCKET)


@cache
def _scorer() -> Any:
    # Imported here: the package brings in nltk, which those who judge SQL need not wait for.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(response: str, references: Sequence[str]) -> float:
    """ROUGE-L F-measure, 0 to 1, against the reference that `response` is nearest to."""
    return max(float(_scorer().score(reference, response)["rougeL"].fmeasure) for reference in references)


@dataclass(frozen=True)
class JudgedInstruction:
    """One instruction, its response for each sample (one if greedy), and the ROUGE-L of each."""

    example_id: str
    instruction: str
    input: str
    references: tuple[str, ...]
    responses: tuple[str, ...]
    rouge_l: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.rouge_l)

    @property
    def length_bucket(self) -> str:
        words = len(self.references[0].split())
        return next((name for name, most in LENGTH_BUCKETS if words <= most), LONGEST_BUCKET)


@dataclass(frozen=True)
class Mean:
    """The mean ROUGE-L of `total` examples."""

    rouge_l: float
    total: int


@dataclass(frozen=True)
class RougeScores:
    """All judged instructions, in the benchmark's order.

    `temperature` is what the responses were sampled at, 0 if they are greedy, and `seeds` those of the samples, in the
    order of every instruction's responses; a file of unknown origin has neither.
    """

    benchmark: str
    instructions: tuple[JudgedInstruction, ...]
    temperature: float = 0.0
    seeds: tuple[int, ...] = ()
    metric: str = METRIC

    @property
    def rouge_l(self) -> float:
        """The mean over examples and samples, 0 to 1."""
        return statistics.fmean(judged.mean for judged in self.instructions)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval: examples drawn with replacement, each with all its samples."""
        return bootstrap_interval([judged.mean for judged in self.instructions])

    @property
    def samples(self) -> int:
        return len(self.instructions[0].responses)

    def by_sample(self) -> list[float]:
        """The mean over examples of each sample."""
        return [
            statistics.fmean(judged.rouge_l[sample] for judged in self.instructions)
            for sample in range(self.samples)
        ]

    def by_length(self) -> dict[str, Mean]:
        """Per bucket of the first reference's length in words, shortest first; empty buckets are left out."""
        parts = {name: self.of_length(name) for name in BUCKET_NAMES}
        return {name: Mean(part.rouge_l, len(part.instructions)) for name, part in parts.items() if part}

    def of_length(self, bucket: str) -> "RougeScores | None":
        """The instructions of one bucket alone; None if there are none."""
        kept = tuple(judged for judged in self.instructions if judged.length_bucket == bucket)
        return replace(self, instructions=kept) if kept else None

    def to_json(self) -> str:
        """Everything, with a summary on top for people; `from_json` reads the instructions and counts again."""
        document = {
            "benchmark": self.benchmark,
            "metric": self.metric,
            "temperature": self.temperature,
            "seeds": self.seeds,
            "rouge_l": self.rouge_l,
            "rouge_l_interval_95": self.interval,
            "rouge_l_by_sample": self.by_sample(),
            "total": len(self.instructions),
            "by_length": {name: asdict(mean) for name, mean in self.by_length().items()},
            "instructions": [asdict(judged) for judged in self.instructions],
        }
        text = json.dumps(document, indent=1, ensure_ascii=False)
        # A response can hold half of a surrogate pair, which no file can.
        return text.encode(errors="backslashreplace").decode()

    @classmethod
    def from_json(cls, text: str) -> "RougeScores":
        """Raises DataError if `text` is not what `to_json` wrote."""
        try:
            document = json.loads(text)
            return cls(
                document["benchmark"],
                tuple(map(_judged_from_json, document["instructions"])),
                document["temperature"],
                tuple(document["seeds"]),
                document["metric"],
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"This is not a file of ROUGE-L scores ({type(error).__name__}: {error}); write one with "
                "`distilsql evaluate`."
            ) from error


def _judged_from_json(values: dict[str, Any]) -> JudgedInstruction:
    lists = {key: tuple(values[key]) for key in ("references", "responses", "rouge_l")}
    return JudgedInstruction(**(values | lists))


def judge_responses(
    samples: Sequence[Sequence[str]],
    benchmark: InstructBenchmark,
    *,
    temperature: float = 0.0,
    seeds: Sequence[int] = (),
) -> RougeScores:
    """ROUGE-L of responses: `samples` holds one list for each sample, in the order of the benchmark's examples.

    Raises DataError if there is no sample or example, or the number of responses is not that of the examples.
    """
    if not samples or not benchmark.examples:
        raise DataError(f"There is nothing to judge: {benchmark.name} needs an example and a response to it.")
    for responses in samples:
        if len(responses) != len(benchmark.examples):
            raise DataError(
                f"{len(responses)} responses for the {len(benchmark.examples)} examples of {benchmark.name}; give "
                "one for each example, in the benchmark's order."
            )
    judged = []
    with progress("judging", len(benchmark.examples)) as advance:
        for example, *responses in zip(benchmark.examples, *samples, strict=True):
            scores = tuple(rouge_l(response, example.references) for response in responses)
            judged.append(
                JudgedInstruction(
                    example.example_id,
                    example.instruction,
                    example.input,
                    example.references,
                    tuple(responses),
                    scores,
                )
            )
            advance()
    return RougeScores(benchmark.name, tuple(judged), temperature, tuple(seeds))


@dataclass(frozen=True)
class RougeComparison:
    """From a first to a second set of responses: the difference of ROUGE-L, second minus first, and whether it could
    be chance (a paired bootstrap of the examples)."""

    difference: float
    interval: tuple[float, float]
    bootstrap_p: float
    better: int
    worse: int

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"difference {100 * self.difference:+.1f} points of {METRIC}, 95 % interval [{100 * low:+.1f}, "
            f"{100 * high:+.1f}]; paired bootstrap p = {self.bootstrap_p:.3g}; {self.better} examples better, "
            f"{self.worse} worse"
        )


def compare_responses(first: RougeScores, second: RougeScores) -> RougeComparison:
    """How `second` differs from `first`, by example. Raises DataError unless both judged the same examples."""
    known_a, known_b = (
        [(judged.example_id, judged.references) for judged in scores.instructions]
        for scores in (first, second)
    )
    if known_a != known_b:
        raise DataError(
            f"The two scores judge different examples ({len(known_a)} of {first.benchmark} and {len(known_b)} of "
            f"{second.benchmark}); evaluate both on the same benchmark."
        )
    before = [judged.mean for judged in first.instructions]
    after = [judged.mean for judged in second.instructions]
    low, high, p = paired_bootstrap(before, after)
    return RougeComparison(
        difference=second.rouge_l - first.rouge_l,
        interval=(low, high),
        bootstrap_p=p,
        better=sum(b > a for a, b in zip(before, after, strict=True)),
        worse=sum(b < a for a, b in zip(before, after, strict=True)),
    )
