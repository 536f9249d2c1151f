"""The official evaluators' verdict on every prediction of seven public systems (Spider) and four (BIRD)."""

import json
from dataclasses import replace

import pytest

from distilsql.data.benchmark import load_benchmark
from distilsql.databases.pool import ExecutionPool
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.golds import GoldResults

SYSTEMS = ("codes-1b", "codes-15b", "graphix", "dail", "c3", "GPT4_zero_shot", "dts-mistral")
PUBLISHED = {"codes-1b": 77.9, "codes-15b": 85.0, "graphix": 81.0}
BIRD = ("codes-1b-bird", "codes-1b-bird-with-evidence", "codes-15b-bird", "codes-15b-bird-with-evidence")


@pytest.fixture(scope="module")
def session(shared):
    """A pool, and golds that run once for all systems."""
    with ExecutionPool(workers=2) as pool:
        yield {"pool": pool, "golds": GoldResults()}


def repeat(benchmark, systems):
    """One benchmark with every example once per system, so that equal predictions of two systems run once."""
    examples = [
        replace(example, example_id=f"{system}/{example.example_id}")
        for system in systems
        for example in benchmark.examples
    ]
    return replace(benchmark, examples=tuple(examples))


@pytest.mark.parametrize("keep_distinct", [False, True])
def test_spider(shared, session, keep_distinct):
    files = [json.loads((shared / f"predictions/spider-dev/{system}.json").read_text()) for system in SYSTEMS]
    benchmark = load_benchmark("spider:dev", root=shared / "data")
    predictions = [sql for file in files for sql in file["predictions"]]
    scores = evaluate(predictions, repeat(benchmark, SYSTEMS), keep_distinct=keep_distinct, **session)
    verdicts = [int(verdict.is_correct) for verdict in scores.verdicts]
    for number, (system, file) in enumerate(zip(SYSTEMS, files, strict=True)):
        mine = verdicts[1034 * number : 1034 * (number + 1)]
        assert mine == file["official_ex_keep_distinct" if keep_distinct else "official_ex"], system
        if not keep_distinct and system in PUBLISHED:
            assert round(100 * sum(mine) / 1034, 1) == PUBLISHED[system]


def test_bird(shared, session):
    files = [json.loads((shared / f"predictions/bird-dev/predict_dev-{s}.json").read_text()) for s in BIRD]
    benchmark = load_benchmark("bird:dev", root=shared / "data", missing_databases="skip")
    keys = [example.example_id.rpartition("/")[2] for example in benchmark.examples]
    assert len(keys) == 432
    predictions = [file["predictions"][key] for file in files for key in keys]
    scores = evaluate(predictions, repeat(benchmark, BIRD), **session)
    assert [int(v.is_correct) for v in scores.verdicts] == [
        file["bird_ex"][key] for file in files for key in keys
    ]
