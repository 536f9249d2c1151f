"""The demo benchmark's questions: drafted per database, split so that no query crosses, put into words, written.

A query's SQL decides alone which split it may be in, on every database, so `valid` and `test` ask for nothing that a
student or the teacher saw in any words.
"""

import json
import re
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from distilsql.data.demo.databases import SEED, SEEN, UNSEEN, teacher_domains
from distilsql.data.demo.domain import Domain
from distilsql.data.demo.neighbours import is_telling
from distilsql.data.demo.patterns import PATTERNS, Draft, Topic, difficulty
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


@dataclass(frozen=True)
class Question:
    """One line of a split's file."""

    db_id: str
    question: str
    gold_sql: str
    pattern: str
    difficulty: str


def split_of(sql: str) -> str:
    return Dice(f"{SEED}/sql/{sql}").weighted(SPLIT_SHARES)


def write_demo(folder: Path) -> None:
    """Write `databases/<db_id>/<db_id>.sqlite` and `<split>.jsonl` for every split into an empty folder."""
    questions: dict[str, list[Question]] = {split: [] for split in SPLITS}
    for domains, quota in ((SEEN, SEEN_QUESTIONS), (UNSEEN, UNSEEN_QUESTIONS)):
        for domain in domains:
            for split, asked in _write_domain(domain, quota, folder).items():
                questions[split] += asked
    for split, asked in questions.items():
        _write_questions(asked, split, folder)


def write_teacher_data(folder: Path) -> None:
    """Write what the teacher is trained on: the training questions of `write_demo`, those about the databases that the
    teacher alone reads, and all of these databases."""
    questions: list[Question] = []
    for domains, quota in ((SEEN, SEEN_QUESTIONS), (teacher_domains(), TEACHER_QUESTIONS)):
        for domain in domains:
            questions += _write_domain(domain, quota, folder)["train"]
    _write_questions(questions, "teacher-train", folder)


def _write_domain(domain: Domain, quota: dict[str, int], folder: Path) -> dict[str, list[Question]]:
    filled = fill(domain, SEED)
    path = folder / "databases" / domain.db_id / f"{domain.db_id}.sqlite"
    path.parent.mkdir(parents=True)
    write_database(filled, path)
    return ask(filled, quota)


def _write_questions(questions: list[Question], split: str, folder: Path) -> None:
    lines = [json.dumps(asdict(question)) + "\n" for question in Dice(f"{SEED}/{split}").shuffled(questions)]
    (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


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
