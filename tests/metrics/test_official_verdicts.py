"""The official evaluators' verdict on every prediction of seven public systems (Spider) and four (BIRD).

The ordinary run judges two systems on BIRD; the others, and Spider with and without keeping DISTINCT, are slow tests.
"""

import json
from dataclasses import replace

import pytest

from distilsql.data.load import load_benchmark
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


@pytest.mark.slow
@pytest.mark.parametrize("keep_distinct", [False, True])
def test_spider(shared, session, keep_distinct):
    files = [json.loads((shared / f"predictions/spider-dev/{system}.json").read_text()) for system in SYSTEMS]
    benchmark = load_benchmark("spider:dev", root=shared / "data")
    count = len(benchmark.examples)
    assert count == 1034
    predictions = [prediction for file in files for prediction in file["predictions"]]
    assert len(predictions) == count * len(files)
    scores = evaluate(predictions, repeat(benchmark, SYSTEMS), keep_distinct=keep_distinct, **session)
    name = "official_ex_keep_distinct" if keep_distinct else "official_ex"
    verdicts = [int(verdict.is_correct) for verdict in scores.verdicts]
    assert verdicts == [verdict for file in files for verdict in file[name]]
    if not keep_distinct:
        rates = {
            system: round(100 * sum(verdicts[count * number : count * (number + 1)]) / count, 1)
            for number, system in enumerate(SYSTEMS)
        }
        assert rates == rates | PUBLISHED


@pytest.mark.parametrize(
    "systems", [BIRD[:2], pytest.param(BIRD[2:], marks=pytest.mark.slow)], ids=["1b", "15b"]
)
def test_bird(shared, session, systems):
    files = [json.loads((shared / f"predictions/bird-dev/predict_dev-{s}.json").read_text()) for s in systems]
    benchmark = load_benchmark("bird:dev", root=shared / "data", missing_databases="skip")
    keys = [example.example_id.rpartition("/")[2] for example in benchmark.examples]
    assert len(keys) == 432
    predictions = [file["predictions"][key] for file in files for key in keys]
    scores = evaluate(predictions, repeat(benchmark, systems), **session)
    assert [int(v.is_correct) for v in scores.verdicts] == [
        file["bird_ex"][key] for file in files for key in keys
    ]
