"""What the teacher writes beforehand: how its questions share batches."""

import pytest

from distilsql.data.example import Instruction
from distilsql.inference.prepare import LengthReport, Prepared, TokenizedExample
from distilsql.training.sources.teacher import _batches


def prepared(prefix_keys: list[str]) -> Prepared:
    examples = tuple(
        TokenizedExample(
            Instruction(f"e{number}", "Say.", "", ("said",)), key, (number,), (1,) * (number + 1)
        )
        for number, key in enumerate(prefix_keys)
    )
    prefixes = dict.fromkeys(prefix_keys, (0,))
    return Prepared(examples, prefixes, LengthReport(len(examples), {}, ()), "instruct")


@pytest.mark.parametrize("shared", [1, 3, 40])
def test_the_teachers_batches_have_every_example_once_and_few_prefixes(recipe, shared):
    """Each prefix of a batch keeps its keys and values in memory: 16 of them at most, even of prompts cut for their
    question, which share none."""
    settings = recipe("f-distill", "generation.max_batch_rows=32")
    questions = prepared([f"db{number // shared}" for number in range(120)])
    asked = set(range(0, 120, 2))
    batches = _batches(settings, questions, asked)
    assert sorted(number for batch in batches for item in batch for number in item.numbers) == sorted(asked)
    for batch in batches:
        assert sum(len(item.numbers) for item in batch) <= 32
        assert len({item.prefix_key for item in batch}) == len(batch) <= 16
    assert _batches(settings, questions, sorted(asked, reverse=True)) == batches, "of the data alone"
