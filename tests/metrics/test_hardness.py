"""Hardness by the official rules, and the clauses a gold is grouped by."""

import json

import pytest

from distilsql.metrics.hardness import clauses_of, hardness


@pytest.mark.parametrize(
    ("sql", "level"),
    [
        ("SELECT count(*) FROM singer", "easy"),
        ("SELECT name FROM singer WHERE age > 20", "easy"),
        ("SELECT name FROM singer ORDER BY age", "easy"),
        ("SELECT name, age FROM singer ORDER BY age", "medium"),
        ("SELECT name FROM singer ORDER BY age LIMIT 1", "medium"),
        ("SELECT max(age), min(age) FROM singer", "medium"),
        ("SELECT name FROM singer WHERE age BETWEEN 20 AND 30", "easy"),
        ("SELECT name FROM singer WHERE age > 20 AND city = 'and or'", "medium"),
        ("SELECT T1.a FROM x AS T1 JOIN y AS T2 ON T1.i = T2.i WHERE T1.b = 1", "medium"),
        ("SELECT name FROM singer WHERE age > (SELECT avg(age) FROM singer)", "hard"),
        ("SELECT name FROM a UNION SELECT name FROM b", "hard"),
        ("SELECT name FROM a WHERE b = 1 UNION SELECT name FROM b ORDER BY c LIMIT 3", "hard"),
        ("SELECT a, max(b) FROM x JOIN y JOIN z WHERE c = 1 GROUP BY a", "extra"),
        ("SELECT a FROM x WHERE b LIKE '%q%' OR c = 1 OR d = 2", "extra"),
        ("SELECT a, b FROM x WHERE c NOT IN (SELECT d FROM y)", "extra"),
    ],
)
def test_levels(sql, level):
    assert hardness(sql) == level
    assert hardness(sql.lower() + " ;") == level


@pytest.mark.parametrize(
    "sql", ["", ";", "(", ")", "select", "from where and or", "WITH t AS (SELECT 1) SELECT * FROM t"]
)
def test_any_text_has_a_level(sql):
    assert hardness(sql) in ("easy", "medium", "hard", "extra")
    assert clauses_of(sql)


def test_clauses():
    sql = (
        "SELECT DISTINCT a FROM x JOIN y WHERE b IN (SELECT c FROM z) "
        "GROUP BY a HAVING count(*) > 1 ORDER BY a LIMIT 1"
    )
    expected = ("JOIN", "WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT", "DISTINCT", "nested query")
    assert clauses_of(sql) == expected
    assert clauses_of("SELECT a FROM x EXCEPT SELECT a FROM y") == ("set operation",)
    assert clauses_of("SELECT a FROM x") == ("plain",)


def test_official_split_of_spider_dev(shared):
    golds = [line.split("\t")[0] for line in (shared / "data/spider/dev_gold.sql").read_text().splitlines()]
    official = json.loads((shared / "predictions/spider-dev-hardness.json").read_text())
    levels = [hardness(gold) for gold in golds]
    assert levels == official
    assert {level: levels.count(level) for level in levels} == {
        "easy": 248,
        "medium": 446,
        "hard": 174,
        "extra": 166,
    }
