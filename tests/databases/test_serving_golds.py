"""Every gold query of Spider and BIRD runs in serving mode: the layers stop no honest query."""

import json
from pathlib import Path

import pytest

from distilsql.databases.job import Outcome, make_job
from distilsql.databases.pool import ExecutionPool

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SPIDER, BIRD = SHARED / "spider", SHARED / "bird"

pytestmark = pytest.mark.skipif(
    not SPIDER.is_dir(),
    reason="real benchmarks are not to be had: there is no folder shared/ beside the repository",
)


def spider_dev():
    pairs = (line.split("\t") for line in (SPIDER / "dev_gold.sql").read_text().splitlines())
    return [(SPIDER / "database" / db_id / f"{db_id}.sqlite", sql) for sql, db_id in pairs]


def spider_train():
    """Those that the material's own check found to run."""
    check = json.loads((SPIDER / "gold_exec_check.json").read_text())
    pairs = []
    for name in ("train_spider.json", "train_others.json"):
        broken = {record["i"] for record in check[name]["not_ok"]}
        records = enumerate(json.loads((SPIDER / name).read_text()))
        pairs += [(record["db_id"], record["query"]) for index, record in records if index not in broken]
    return [(SPIDER / "database" / db_id / f"{db_id}.sqlite", sql) for db_id, sql in pairs]


def bird():
    records = []
    for name in ("dev.runnable.json", "mini_dev_sqlite.runnable.json"):
        records += json.loads((BIRD / name).read_text())
    return [(BIRD / "dev_databases" / r["db_id"] / f"{r['db_id']}.sqlite", r["SQL"]) for r in records]


@pytest.mark.parametrize(
    "golds",
    [spider_dev, bird, pytest.param(spider_train, marks=pytest.mark.slow)],
    ids=lambda golds: golds.__name__,
)
def test_golds_run_in_serving_mode(golds):
    jobs = list(dict.fromkeys(make_job(path, sql, mode="serving", timeout_s=30) for path, sql in golds()))
    assert len(jobs) > 400
    with ExecutionPool(workers=2) as pool:
        outcomes = pool.map(jobs, lambda index, execution: (execution.outcome, execution.message))
    expected = (Outcome.ROWS, Outcome.TOO_MANY_ROWS)
    stopped = [(jobs[i].sql, outcome) for i, outcome in enumerate(outcomes) if outcome[0] not in expected]
    assert stopped == []
