"""The demo benchmark's questions: drafted per database, split so that no query crosses, put into words, written.

A query's SQL decides alone which split it may be in, on every database, so `valid` and `test` ask for nothing that a
student or the teacher saw in any words.
"""

import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from distilsql.data.demo.databases import SEED, SEEN, UNSEEN, teacher_domains
from distilsql.data.demo.domain import Domain
from distilsql.data.demo.neighbours import is_telling
from distilsql.data.demo.noise import spoil
from distilsql.data.demo.patterns import PATTERNS, Draft, Topic, difficulty
from distilsql.data.demo.question import Question
from distilsql.data.demo.rows import FilledDomain, connect, fill, write_database
from distilsql.data.demo.wordings import WORDINGS
from distilsql.data.dice import Dice

SPLITS = ("train", "valid", "test")
# Questions per database. The unseen databases are in the test only, the teacher's own in training only.
SEEN_QUESTIONS = {"train": 450, "valid": 25, "test": 90}
UNSEEN_QUESTIONS = {"test": 40}
TEACHER_QUESTIONS = {"train": 160}
SPLIT_SHARES = {"train": 0.7, "valid": 0.05, "test": 0.25}
# Training asks most queries twice, in different words, as Spider does.
ASKED_TWICE_SHARE = 0.6


def split_of(sql: str) -> str:
    return Dice(f"{SEED}/sql/{sql}").weighted(SPLIT_SHARES)


def write_demo(folder: Path) -> None:
    """Write `databases/<db_id>/<db_id>.sqlite` and `<split>.jsonl` for every split into an empty folder."""
    write_splits(folder, {SEEN: SEEN_QUESTIONS, UNSEEN: UNSEEN_QUESTIONS})


def write_splits(
    folder: Path, quotas: Mapping[tuple[Domain, ...], dict[str, int]], *, prefix: str = ""
) -> None:
    """Write every database and `<prefix><split>.jsonl`, with as many questions about each database as the quota of its
    domains says. `noisy` asks what `train` asks, in the same order, with some golds spoilt."""
    questions: dict[str, list[Question]] = {split: [] for split in (*SPLITS, "noisy")}
    for domains, quota in quotas.items():
        for domain in domains:
            asked = write_domain(domain, quota, folder)
            for split, found in asked.items():
                questions[split] += found
            with closing(sqlite3.connect(_place(domain, folder))) as connection:
                questions["noisy"] += [spoil(question, connection) for question in asked.get("train", ())]
    for split, found in questions.items():
        order = "train" if split == "noisy" else split
        _write_questions(found, folder / f"{prefix}{split}.jsonl", order=f"{prefix}{order}")


def write_teacher_data(folder: Path) -> None:
    """Write what the teacher is trained on: the training questions of `write_demo`, those about the databases that the
    teacher alone reads, and all of these databases."""
    questions: list[Question] = []
    for domains, quota in ((SEEN, SEEN_QUESTIONS), (teacher_domains(), TEACHER_QUESTIONS)):
        for domain in domains:
            questions += write_domain(domain, quota, folder)["train"]
    _write_questions(questions, folder / "teacher-train.jsonl", order="teacher-train")


def write_domain(domain: Domain, quota: dict[str, int], folder: Path) -> dict[str, list[Question]]:
    """Write a database under `folder/databases`; returns as many questions about it for each split as `quota` says."""
    filled = fill(domain, SEED)
    path = _place(domain, folder)
    path.parent.mkdir(parents=True)
    write_database(filled, path)
    return ask(filled, quota)


def _place(domain: Domain, folder: Path) -> Path:
    return folder / "databases" / domain.db_id / f"{domain.db_id}.sqlite"


def _write_questions(questions: list[Question], file: Path, *, order: str) -> None:
    """Write the questions, shuffled by a seed called `order`."""
    lines = [json.dumps(asdict(question)) + "\n" for question in Dice(f"{SEED}/{order}").shuffled(questions)]
    file.write_text("".join(lines), encoding="utf-8")


def ask(filled: FilledDomain, quota: dict[str, int]) -> dict[str, list[Question]]:
    """Questions about one database, as many for each split as `quota` says."""
    dice = Dice(f"{SEED}/{filled.domain.db_id}/questions")
    asked: dict[str, list[Question]] = {split: [] for split in quota}
    used: set[str] = set()
    with closing(connect(filled)) as connection:
        while any(len(asked[split]) < count for split, count in quota.items()):
            topic = Topic(filled, dice.pick(filled.domain.tables), dice)
            draft = dice.weighted(PATTERNS)(topic)
            if draft is None or draft.sql in used:
                continue
            split = split_of(draft.sql)
            if len(asked.get(split, ())) >= quota.get(split, 0) or not is_telling(draft.sql, connection):
                continue
            used.add(draft.sql)
            times = 2 if split == "train" and dice.chance(ASKED_TWICE_SHARE) else 1
            asked[split] += [_question(filled.domain.db_id, draft, text) for text in word(draft, times, dice)]
    return {split: questions[: quota[split]] for split, questions in asked.items()}


def word(draft: Draft, times: int, dice: Dice) -> tuple[str, ...]:
    """The draft's query asked `times` times, never twice in the same words."""
    questions: dict[str, None] = {}
    while len(questions) < times:
        phrases = {slot: dice.pick(options) for slot, options in draft.phrases.items()}
        questions[_tidy(dice.pick(WORDINGS[draft.pattern]).format(**phrases))] = None
    return tuple(questions)


def _tidy(text: str) -> str:
    """Close the gap that an empty condition leaves."""
    return re.sub(r" (?=[ ,.?])", "", text)


def _question(db_id: str, draft: Draft, text: str) -> Question:
    return Question(db_id, text, draft.sql, draft.pattern, difficulty(draft))
