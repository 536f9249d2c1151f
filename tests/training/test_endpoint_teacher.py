"""seqkd on what an endpoint writes: every query is run, asked for once, and no fault of the endpoint loses one."""

import itertools
import json

import pytest

from distilsql.distill.exposure import ExposureOptions
from distilsql.errors import ModelError, RecipeError, RunError
from distilsql.inference.exposure import expose_run
from distilsql.inference.prepare import load_data
from distilsql.synthesis.teacher import endpoint as endpoint_module
from distilsql.training.sources import endpoint as source_module
from distilsql.training.sources.endpoint import answers_file
from distilsql.training.train import train
from fake_api import FakeApi
from references import alone
from run_folders import losses, step_lines
from tiny_world import PAIRS

GOLDS = dict(PAIRS)
WRONG = "List all names."


@pytest.fixture
def api(monkeypatch):
    """Writes gold in a fence, but for one question a query that does not run."""
    api = FakeApi()

    def answer(body):
        text = body["messages"][-1]["content"]
        question = next(each for each in GOLDS if each in text)
        sql = "SELECT nothing FROM singer" if question == WRONG else GOLDS[question]
        content = f"Here it is:\n```sql\n{sql};\n```"
        return {"choices": [{"message": {"content": content}}], "usage": {"total_tokens": 100}}

    api.answer = answer
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(endpoint_module, "LONGEST_WAIT_S", 0.0)
    yield api
    api.close()


@pytest.fixture
def settings(recipe, api):
    def make(*overrides: str):
        keys = (f"teacher.endpoint={api.url}", "teacher.path=big-model", "train.steps=2")
        return recipe("seqkd", *keys, *overrides)

    return make


def test_queries_are_run_and_gold_stands_for_those_that_fail(recipe, settings, api, tmp_path):
    api.faults = [429, 500, "nonsense"]
    run = train(settings(), tmp_path / "run")
    assert len(api.requests) == 10 + 3
    assert {request["model"] for request in api.requests} == {"big-model"}
    assert {request["temperature"] for request in api.requests} == {0.0}, "greedy stands for beam search"
    records = [json.loads(line) for line in run.teacher_completions.read_text().splitlines()]
    assert sum(record["is_kept"] for record in records) == 9
    examples = {each.example.example_id: each for each in alone(settings()).prepared.examples}
    for record in records:
        example = examples[record["example_id"]]
        assert (tuple(record["tokens"]) == example.gold) is (example.example.question != WRONG)
    found = json.loads(run.summary.read_text())["teacher_completions"]
    assert (found["run"], found["match_gold"], found["replaced_by_gold"]) == (9, 9, 1)
    # All of it is gold in the end, so the training is that on gold.
    assert losses(run) == pytest.approx(
        losses(train(recipe("sft", "train.steps=2"), tmp_path / "sft")), rel=1e-4
    )
    assert all(line["divergence"] is None for line in step_lines(run))
    with pytest.raises(RunError, match=r"no probabilities.*--teacher"):
        expose_run(run, load_data(settings())[0], ExposureOptions())


def test_a_killed_run_and_one_started_over_ask_for_nothing_twice(settings, api, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    reply, numbers = source_module.Endpoint._reply, itertools.count()

    def dies(self, *arguments):
        if next(numbers) >= 6:
            raise Killed
        return reply(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(source_module.Endpoint, "_reply", dies)
        with pytest.raises(Killed):
            train(settings(), tmp_path / "run")
    asked = len(api.requests)
    run = train(settings(), tmp_path / "run")
    assert (asked, len(api.requests)) == (6, 10)
    train(settings("train.steps=1"), tmp_path / "run", overwrite=True)
    assert len(api.requests) == 10
    assert len(answers_file(settings()).read_text().splitlines()) == 10
    assert run.is_finished()


def test_a_budget_ends_it_with_a_sentence_and_keeps_what_was_answered(settings, api, tmp_path):
    with pytest.raises(ModelError, match=r"endpoint_budget = 700 tokens.*larger budget"):
        train(settings("teacher.endpoint_budget=700"), tmp_path / "run")
    asked = len(api.requests)
    assert 1 <= asked < 10
    train(settings("teacher.endpoint_budget=7000"), tmp_path / "run", overwrite=True)
    assert len(api.requests) == 10


def test_an_endpoint_that_stays_down_is_said(settings, api, tmp_path):
    api.faults = [500] * len(PAIRS) * endpoint_module.ATTEMPTS
    with pytest.raises(ModelError, match=r"status 500.*no teacher\.endpoint"):
        train(settings(), tmp_path / "run")


def test_what_an_endpoint_cannot_be(recipe):
    address = "teacher.endpoint=http://localhost:1/v1"
    for method in ("rkd", "kid", "f-distill", "switch"):
        with pytest.raises(RecipeError, match="probabilities of all tokens"):
            recipe(method, address)
    with pytest.raises(RecipeError, match=r"no http\(s\) address"):
        recipe("seqkd", "teacher.endpoint=localhost")
    with pytest.raises(RecipeError, match="DISTILSQL_API_KEY"):
        recipe("seqkd", "teacher.endpoint=http://me:secret@localhost/v1")
    with pytest.raises(RecipeError, match="a teacher that is loaded"):
        recipe("seqkd", address, "teacher.quantization=8bit")
