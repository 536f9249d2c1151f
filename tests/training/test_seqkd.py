"""seqkd: the teacher writes once, by beam search or sampling, and the student learns the likelihood of that."""

import json

import pytest
import torch

from distilsql.errors import RecipeError
from distilsql.inference.loading import load_engines
from distilsql.models.generate import GenerationOptions, beam_search
from distilsql.training.train import train
from references import alone
from run_folders import step_lines
from tiny_world import COMPLETION_TOKENS


def written(run) -> dict[str, tuple[int, ...]]:
    records = map(json.loads, run.teacher_completions.read_text().splitlines())
    return {record["example_id"]: tuple(record["tokens"]) for record in records}


@pytest.mark.slow
def test_the_teacher_writes_by_beam_search_as_published(recipe, tmp_path):
    settings = recipe("seqkd", "train.steps=2", "generation.max_batch_rows=16")
    run = train(settings, tmp_path / "run")
    engines = load_engines(settings, torch.device("cpu"))
    options = GenerationOptions(engines.eos_token_id, engines.vocabulary_size, COMPLETION_TOKENS)
    prepared, found = alone(settings).prepared, written(run)
    assert len(found) == 10
    for example in prepared.examples:
        (best,) = beam_search(engines.teacher, prepared.tree([example]), options, beams=5)
        assert found[example.example.example_id] == best


def test_the_loss_is_the_mean_negative_log_likelihood_of_what_the_teacher_wrote(recipe, tmp_path):
    """Kim and Rush 2016, §3.2."""
    settings = recipe("seqkd", "train.steps=1", "train.trees_per_step=4", "train.learning_rate=1e-30")
    run = train(settings, tmp_path / "run")
    models, found, means = alone(settings), written(run), []
    for example in models.prepared.examples:
        completion = found[example.example.example_id]
        logps = models.log_probs("student", example, completion)
        means.append(-sum(logps[t, token].item() for t, token in enumerate(completion)) / len(completion))
    (line,) = step_lines(run)
    assert line["examples_seen"] == 10
    assert line["loss"] == pytest.approx(sum(means) / 10, rel=1e-4)
    assert line["divergence"] is None


@pytest.mark.slow
def test_one_beam_samples(recipe, tmp_path):
    keys = ("train.steps=1", "train.trees_per_step=4", "generation.teacher_beams=1")
    one, same, other = (
        written(train(recipe("seqkd", *keys, f"seed={seed}"), tmp_path / name))
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    )
    assert one == same
    assert one != other


def test_an_engine_that_searches_no_beams_is_refused(recipe):
    with pytest.raises(RecipeError, match="teacher_beams = 1"):
        recipe("seqkd", "generation.engine=vllm")
    assert recipe("seqkd", "generation.engine=vllm", "generation.teacher_beams=1").teacher_beams == 1
    assert [recipe(method).teacher_beams for method in ("seqkd", "f-distill", "kid")] == [5, 1, 1]
