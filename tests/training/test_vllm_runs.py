"""Training whose completions vLLM's stand-in writes: the same run as with the built-in generator, greedily."""

import json

import pytest

from distilsql.errors import RecipeError
from distilsql.training.train import train
from run_folders import losses

GREEDY = ("generation.temperature=0", "train.steps=3")


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [("student.tuning=lora", "generation.rollout_window=2"), ()])
def test_on_policy_training_is_the_same_with_either_writer(recipe, tmp_path, vllm, overrides):
    built_in = train(recipe("gkd-rkl", *GREEDY, *overrides), tmp_path / "built-in")
    by_vllm = train(recipe("gkd-rkl", *GREEDY, *overrides, "generation.engine=vllm"), tmp_path / "vllm")
    assert losses(by_vllm) == pytest.approx(losses(built_in), rel=1e-3)
    rounds = 2 if "generation.rollout_window=2" in overrides else 3
    assert len(vllm.LLM.started[0].paths) == rounds, "the weights of every round"


@pytest.mark.slow
def test_the_teacher_writes_beforehand_through_an_engine_of_its_own(recipe, tmp_path, vllm):
    built_in = train(recipe("f-distill", *GREEDY), tmp_path / "built-in")
    by_vllm = train(recipe("f-distill", *GREEDY, "generation.engine=vllm"), tmp_path / "vllm")
    assert by_vllm.teacher_completions.read_text().count("\n") == 10

    def tokens(run) -> dict[str, list[int]]:
        records = map(json.loads, run.teacher_completions.read_text().splitlines())
        return {record["example_id"]: record["tokens"] for record in records}

    assert tokens(by_vllm) == tokens(built_in)
    assert losses(by_vllm) == pytest.approx(losses(built_in), rel=1e-3)
    assert len(vllm.LLM.started) == 2


def test_a_method_that_writes_nothing_starts_no_engine(recipe, tmp_path, vllm):
    train(recipe("kid", "generation.engine=vllm", "train.steps=1"), tmp_path / "run")
    assert vllm.LLM.started == []


def test_switch_and_quantised_teachers_are_refused(recipe):
    with pytest.raises(RecipeError, match="every token"):
        recipe("switch", "generation.engine=vllm")
    with pytest.raises(RecipeError, match="quantised"):
        recipe("f-distill", "generation.engine=vllm", "teacher.quantization=8bit")
