"""The demo benchmark's questions: drafted per database, split so that no query crosses, put into words, written.

A query's SQL decides alone which split it may be in, so `valid` and `test` ask for nothing that training saw in any
words. Splitting by the SQL without its values was tried: a model that is trained for two minutes then answers less
than a sixth of the test questions, too little to tell methods apart.
"""

import json
import re
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from distilsql.data.demo.dice import Dice
from distilsql.data.demo.domains import SEEN, UNSEEN
from distilsql.data.demo.neighbours import is_telling
from distilsql.data.demo.patterns import PATTERNS, Draft, Topic, difficulty
from distilsql.data.demo.rows import FilledDomain, connect, fill, write_database
from distilsql.data.demo.wordings import WORDINGS

SEED = "distilsql demo"
SPLITS = ("train", "valid", "test")
# Questions per database. The unseen databases are in the test only.
SEEN_QUESTIONS = {"train": 450, "valid": 25, "test": 25}
UNSEEN_QUESTIONS = {"test": 50}
SPLIT_SHARES = {"train": 0.84, "valid": 0.08, "test": 0.08}
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
            filled = fill(domain, SEED)
            path = folder / "databases" / domain.db_id / f"{domain.db_id}.sqlite"
            path.parent.mkdir(parents=True)
            write_database(filled, path)
            for split, asked in ask(filled, quota).items():
                questions[split] += asked
    for split, asked in questions.items():
        lines = [json.dumps(asdict(question)) + "\n" for question in Dice(f"{SEED}/{split}").shuffled(asked)]
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
