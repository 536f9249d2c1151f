"""Golds as people write them: some wrong, some in another hand.

A clean grammar leaves a teacher nothing to correct. The noisy splits ask what the clean ones ask, and spoil some of the
golds. Validation and test are never spoilt.
"""

import re
import sqlite3
from dataclasses import replace

from distilsql.data.demo.neighbours import neighbours
from distilsql.data.demo.question import Question
from distilsql.data.dice import Dice

# Shares of the golds that are spoilt: another query than the question asks for, or the same in another hand.
WRONG_SHARE = 0.15
RESTYLED_SHARE = 0.15

_LITERAL = re.compile(r"('(?:[^']|'')*')")
_KEYWORD = re.compile(r"\b[A-Z]{2,}\b")


def spoil(question: Question, connection: sqlite3.Connection) -> Question:
    """The question with the gold that somebody careless, or of other habits, gives it; most keep their own."""
    dice = Dice(f"noise/{question.db_id}/{question.question}/{question.gold_sql}")
    kind = dice.weighted(
        {"wrong": WRONG_SHARE, "restyled": RESTYLED_SHARE, "": 1 - WRONG_SHARE - RESTYLED_SHARE}
    )
    if kind == "restyled":
        return replace(question, gold_sql=restyled(question.gold_sql))
    if kind == "wrong":
        wrong = [sql for sql in neighbours(question.gold_sql) if _runs(sql, connection)]
        return replace(question, gold_sql=dice.pick(wrong)) if wrong else question
    return question


def restyled(sql: str) -> str:
    """The same query as others write it: keywords in lower case, joins and ascending order in another spelling."""
    parts = _LITERAL.split(sql)
    return "".join(part if part.startswith("'") else _in_another_hand(part) for part in parts)


def _in_another_hand(sql: str) -> str:
    said = re.sub(r" ASC\b", "", sql).replace(" JOIN ", " INNER JOIN ").replace(" != ", " <> ")
    return _KEYWORD.sub(lambda word: word[0].lower(), said)


def _runs(sql: str, connection: sqlite3.Connection) -> bool:
    try:
        connection.execute(sql).fetchall()
    except sqlite3.Error:
        return False
    return True
