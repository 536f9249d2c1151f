"""The laboratory's splits: spoilt golds are spoilt as stated, and nothing else is."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from distilsql.data.demo import lab, noise
from distilsql.data.demo.build import split_of
from distilsql.data.demo.databases import SEEN, UNSEEN

QUOTA = {"train": 60, "valid": 5, "test": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The laboratory with few questions per database."""
    made = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "SEEN_QUESTIONS", QUOTA)
        patch.setattr(lab, "UNSEEN_QUESTIONS", {"test": 4})
        lab.write_lab(made)
    return made


def questions(folder: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / f"lab-{split}.jsonl").read_text().splitlines()]


def rows(folder: Path, question: dict[str, str]) -> list[tuple[object, ...]]:
    database = folder / "databases" / question["db_id"] / f"{question['db_id']}.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(question["gold_sql"]).fetchall()
    return found if " order by " in question["gold_sql"].lower() else sorted(found, key=repr)


def test_every_split_has_as_many_questions_as_it_should(folder):
    assert len(questions(folder, "train")) == len(questions(folder, "noisy")) == 60 * len(SEEN)
    assert len(questions(folder, "valid")) == 5 * len(SEEN)
    assert len(questions(folder, "test")) == 10 * len(SEEN) + 4 * len(UNSEEN)


@pytest.mark.slow
def test_the_text_is_the_pinned_one(tmp_path):
    """Runs on demo:lab rest on it. The first digits of SHA-256 of the whole laboratory."""
    lab.write_lab(tmp_path)
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in tmp_path.glob("*.jsonl")
    }
    assert found == {
        "lab-train.jsonl": "a274b6612ba5c833",
        "lab-noisy.jsonl": "9bd8b6eb090aff83",
        "lab-valid.jsonl": "bf5cd28a435219b0",
        "lab-test.jsonl": "19b756221200b299",
    }


def test_noisy_asks_what_train_asks_in_the_same_order(folder):
    clean, noisy = questions(folder, "train"), questions(folder, "noisy")
    assert [{**one, "gold_sql": ""} for one in clean] == [{**one, "gold_sql": ""} for one in noisy]


def test_a_spoilt_gold_is_wrong_or_the_same_query_in_another_hand(folder):
    wrong = restyled = 0
    for clean, noisy in zip(questions(folder, "train"), questions(folder, "noisy"), strict=True):
        if noisy["gold_sql"] == noise.restyled(clean["gold_sql"]) != clean["gold_sql"]:
            restyled += 1
            assert rows(folder, noisy) == rows(folder, clean), noisy
        elif noisy["gold_sql"] != clean["gold_sql"]:
            wrong += 1
            assert rows(folder, noisy) != rows(folder, clean), noisy
    total = len(questions(folder, "train"))
    assert abs(wrong / total - noise.WRONG_SHARE) < 0.05
    assert abs(restyled / total - noise.RESTYLED_SHARE) < 0.05


@pytest.mark.parametrize("split", ["valid", "test"])
def test_what_is_measured_on_is_of_its_own_split_and_never_spoilt(folder, split):
    trained_on = {question["gold_sql"] for question in questions(folder, "train")}
    for question in questions(folder, split):
        assert split_of(question["gold_sql"]) == split
        assert question["gold_sql"] not in trained_on


def test_another_hand_leaves_values_as_they_are():
    assert (
        noise.restyled(
            "SELECT name FROM team WHERE city = 'NEW ASC JOIN' AND country != 'UK' ORDER BY name ASC"
        )
        == "select name from team where city = 'NEW ASC JOIN' and country <> 'UK' order by name"
    )
