"""What a server's users say becomes part of the training data: `data.extra`."""

import json
import shutil

import pytest

from distilsql.data.extra import with_extra
from distilsql.data.load import load_benchmark
from distilsql.errors import DataError
from distilsql.inference.prepare import load_data
from distilsql.runs.recipe import make_recipe
from tiny_world import world

__all__ = ["world"]

FEEDBACK = [
    {"question": "List all names.", "sql": "SELECT name FROM singer ORDER BY 1", "verdict": "corrected"},
    {"question": "Who is from Peru?", "sql": "SELECT id FROM singer", "verdict": "corrected"},
    {
        "question": "Who is  from Peru?",
        "sql": "SELECT name FROM singer WHERE country = 'Peru'",
        "verdict": "right",
    },
]


@pytest.fixture
def feedback(world):
    path = world / "feedback.jsonl"
    lines = [{**each, "database": str(world / "singers.sqlite"), "written": "SELECT 1"} for each in FEEDBACK]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def load(world, name):
    return load_benchmark(str(world / name), database=world / "singers.sqlite")


def test_the_last_word_on_a_question_counts(world, feedback):
    train = load(world, "pairs.jsonl")
    both = with_extra(train, load(world, "feedback.jsonl"))
    found = {each.question: each.gold_sql for each in both.examples}
    assert len(both.examples) == len(train.examples) + 1
    assert found["List all names."] == FEEDBACK[0]["sql"]
    assert found["Who is  from Peru?"] == FEEDBACK[2]["sql"]
    assert "Who is from Peru?" not in found
    assert len({each.example_id for each in both.examples}) == len(both.examples)
    assert both.databases.keys() == train.databases.keys()


def test_a_recipe_names_it_and_a_limit_leaves_it_whole(world, feedback):
    recipe = make_recipe(
        {
            "method": "sft",
            "student": {"path": "anything"},
            "data": {
                "train": str(world / "pairs.jsonl"),
                "extra": str(feedback),
                "database": str(world / "singers.sqlite"),
                "train_limit": 3,
            },
            "train": {"steps": 1},
        }
    )
    train_set, _ = load_data(recipe)
    assert 4 <= len(train_set.examples) <= 5
    assert {each.question for each in train_set.examples} >= {"List all names.", "Who is  from Peru?"}


def test_two_files_by_one_name_are_refused(world, feedback, tmp_path):
    (tmp_path / "other").mkdir()
    shutil.copy(world / "singers.sqlite", tmp_path / "other" / "singers.sqlite")
    other = load_benchmark(str(world / "pairs.jsonl"), database=tmp_path / "other" / "singers.sqlite")
    with pytest.raises(DataError, match="two databases by singers"):
        with_extra(other, load(world, "feedback.jsonl"))


def test_instructions_are_refused(world, feedback, tmp_path):
    (tmp_path / "i.jsonl").write_text('{"instruction": "Say hello.", "output": "hello"}\n')
    instructions = load_benchmark(str(tmp_path / "i.jsonl"))
    with pytest.raises(DataError, match="leave it out for instruction following"):
        with_extra(instructions, load(world, "feedback.jsonl"))
