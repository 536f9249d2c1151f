"""ROUGE-L as MiniLLM computes it, its mean over examples and samples, its files, and paired comparisons."""

import re
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilsql.data.benchmark import InstructBenchmark
from distilsql.data.example import Instruction
from distilsql.errors import DataError
from distilsql.metrics.predictions import read_responses
from distilsql.metrics.rouge import RougeScores, compare_responses, judge_responses, rouge_l

EXAMPLES = (
    Instruction("x/0", "Name a colour.", "", ("red", "a deep blue")),
    Instruction(
        "x/1", "Tell a story.", "Of a fox.", ("The quick fox ran over the hill and never came back again",)
    ),
    Instruction("x/2", "Give six.", "", ("one two three four five six",)),
)
BENCHMARK = InstructBenchmark("x:valid", EXAMPLES)
GOLD = [example.references[0] for example in EXAMPLES]


def longest_common(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + longest_common(a[:-1], b[:-1])
    return max(longest_common(a[:-1], b), longest_common(a, b[:-1]))


words = st.lists(st.sampled_from(["cat", "dog", "on", "a", "7"]), max_size=6)


@settings(deadline=None)  # the first call loads the package
@given(words, words)
def test_it_is_the_f_measure_of_the_longest_common_subsequence(
    response: list[str], reference: list[str]
) -> None:
    common = longest_common(response, reference)
    expected = 2 * common / (len(response) + len(reference)) if common else 0.0
    # Words of at most three letters are not stemmed; case and punctuation do not count.
    assert rouge_l("! ".join(response).upper(), [" ".join(reference)]) == pytest.approx(expected)


def test_words_are_stemmed_as_minillm_does() -> None:
    assert rouge_l("the runners are running", ["The runner is run"]) == pytest.approx(0.75)


def test_the_nearest_reference_counts() -> None:
    assert rouge_l("deep blue", ["red", "deep blue", "blue"]) == 1.0
    assert rouge_l("", ["red"]) == 0.0


def test_gold_scores_all_and_buckets_go_by_words_of_the_first_reference() -> None:
    scores = judge_responses([GOLD], BENCHMARK)
    assert (scores.rouge_l, scores.interval, scores.metric) == (1.0, (1.0, 1.0), "ROUGE-L")
    counts = {name: mean.total for name, mean in scores.by_length().items()}
    assert counts == {"0-5 words": 1, "6-10 words": 1, "11 words or more": 1}
    second = judge_responses([["red", "", "one"]], BENCHMARK).by_length()
    assert second["0-5 words"].rouge_l == 1.0
    assert second["11 words or more"].rouge_l == 0.0


@pytest.mark.parametrize(
    ("words", "bucket"), [(5, "0-5 words"), (6, "6-10 words"), (10, "6-10 words"), (11, "11 ")]
)
def test_both_ends_of_a_bucket_are_in_it(words: int, bucket: str) -> None:
    benchmark = InstructBenchmark("x", (Instruction("x/0", "?", "", (" ".join(["word"] * words), "word")),))
    (name,) = judge_responses([["word"]], benchmark).by_length()
    assert name.startswith(bucket)


def test_samples_are_averaged_and_stand_in_the_file() -> None:
    samples = [GOLD, ["green", "", ""], ["deep blue", "A fox", "one \udcff two"]]
    scores = judge_responses(samples, BENCHMARK, temperature=1.0, seeds=(3, 5, 8))
    alone = [judge_responses([sample], BENCHMARK).rouge_l for sample in samples]
    assert scores.by_sample() == pytest.approx(alone)
    assert scores.rouge_l == pytest.approx(statistics.fmean(alone))
    low, high = scores.interval
    assert low < scores.rouge_l < high
    again = RougeScores.from_json(scores.to_json())
    assert (again.rouge_l, again.temperature, again.seeds) == (scores.rouge_l, 1.0, (3, 5, 8))
    assert again.instructions[:2] == scores.instructions[:2]
    with pytest.raises(DataError, match="not a file of ROUGE-L scores"):
        RougeScores.from_json('{"benchmark": "x"}')


def test_a_wrong_number_of_responses_is_refused() -> None:
    with pytest.raises(DataError, match="2 responses for the 3 examples"):
        judge_responses([GOLD, GOLD[:2]], BENCHMARK)
    with pytest.raises(DataError, match="nothing to judge"):
        judge_responses([], BENCHMARK)


def test_a_comparison_pairs_examples() -> None:
    many = InstructBenchmark("m", tuple(Instruction(f"m/{n}", "?", "", ("a b c",)) for n in range(40)))
    before = judge_responses([["a"] * 20 + ["a b c"] * 20], many)
    after = judge_responses([["a b"] * 20 + ["a b c"] * 20], many)
    found = compare_responses(before, after)
    assert found.difference == pytest.approx((0.8 - 0.5) / 2)
    assert found.interval[0] < found.difference < found.interval[1]
    assert (found.better, found.worse) == (20, 0)
    assert found.bootstrap_p < 0.001
    assert compare_responses(after, before).difference == pytest.approx(-found.difference)
    assert compare_responses(after, after).bootstrap_p == 1.0
    with pytest.raises(DataError, match="different examples"):
        compare_responses(before, judge_responses([GOLD], BENCHMARK))


def test_responses_are_read_by_id_or_in_order(tmp_path) -> None:
    own, plain = tmp_path / "own.jsonl", tmp_path / "answers.jsonl"
    own.write_text(
        '{"example_id": "x/2", "response": "two\\nlines"}\n{"example_id": "x/0", "response": ""}\n'
        '{"example_id": "x/1", "response": "one"}\n'
    )
    assert read_responses(own, BENCHMARK) == ["", "one", "two\nlines"]
    plain.write_text('{"text": "a"}\n{"text": ""}\n{"text": "c"}\n')
    assert read_responses(plain, BENCHMARK) == ["a", "", "c"]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ('{"text": "a"}\n{"text": "b"}\n', "has 2 lines, x:valid has 3 examples"),
        ('{"text": "a"}\n{"answer": "b"}\n{"text": "c"}\n', "line 2 is not a response"),
        ('{"text": "a"}\nb\n{"text": "c"}\n', "line 2 is not JSON"),
        ('{"example_id": "x/0", "sql": "SELECT 1"}\n', 'write {"example_id": "…", "response": "…"}'),
        ('{"example_id": "x/0", "response": "a"}\n', "has no prediction for x/1"),
        ('{"example_id": "y/0", "response": "a"}\n', "has no example 'y/0'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, lines: str, complaint: str) -> None:
    file = tmp_path / "responses.jsonl"
    file.write_text(lines)
    with pytest.raises(DataError, match=re.escape(complaint)):
        read_responses(file, BENCHMARK)


def test_lines_of_text_are_refused_because_responses_have_line_breaks(tmp_path) -> None:
    with pytest.raises(DataError, match=r"does not end in \.jsonl"):
        read_responses(tmp_path / "responses.txt", BENCHMARK)
