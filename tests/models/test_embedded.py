"""The teacher that comes with the package: it is what was shipped, it loads, and it is as good as its record says."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from distilsql.data.load import load_sql_benchmark
from distilsql.errors import ModelError
from distilsql.experiments.demo.teacher import PROMPT
from distilsql.inference.predict import load_any, predict
from distilsql.models import embedded
from distilsql.models.embedded import DEMO_TEACHER, check_files, embedded_folder, read_record, resolve
from distilsql.models.load import load_model, load_tokenizer
from distilsql.runs.evaluate import judge
from distilsql.runs.recipe import load_recipe
from distilsql.runs.sections import PromptSettings

LARGEST_BYTES = 6_000_000


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    shutil.copytree(embedded_folder(DEMO_TEACHER), folder)
    return folder


def test_it_is_small_and_has_a_recipe_a_record_and_checksums():
    folder = embedded_folder(DEMO_TEACHER)
    files = [path for path in folder.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
    assert set(read_record(folder)["sha256"]) == {path.name for path in files} - {"record.json"}
    assert load_recipe(folder / "recipe.toml").data.train == "demo:teacher-train"
    check_files(folder)


def test_it_loads_by_name_and_any_other_path_stays_as_it_is(tmp_path):
    model = load_model(DEMO_TEACHER, "float32")
    assert (
        sum(p.numel() for p in model.parameters()) == read_record(embedded_folder(DEMO_TEACHER))["parameters"]
    )
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert load_tokenizer(DEMO_TEACHER).eos_token_id is not None
    assert resolve("some/hub-name") == "some/hub-name"
    assert resolve(tmp_path) == str(tmp_path)


def test_a_name_that_nobody_has_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match=r"There is no model demo:nobody.*demo:teacher"):
        load_tokenizer("demo:nobody")


def test_a_changed_file_is_refused_by_name(copy):
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors has the checksum .*--train-teacher"):
        check_files(copy)


def test_a_missing_file_and_a_broken_record_are_refused(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        check_files(copy)
    (copy / "record.json").write_text("{")
    with pytest.raises(ModelError, match=r"record\.json cannot be read"):
        check_files(copy)


def test_loading_checks_the_files(copy, monkeypatch):
    (copy / "config.json").write_text("{}")
    monkeypatch.setattr(embedded, "embedded_folder", lambda name: copy)
    embedded._checked_folder.cache_clear()
    with pytest.raises(ModelError, match=r"config\.json has the checksum"):
        load_model(DEMO_TEACHER, "float32")
    embedded._checked_folder.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["demo:test-seen", "demo:test-unseen"])
def test_its_score_is_what_the_record_says(spec, tmp_path):
    """On a fifth of the questions, hence the margin: three standard errors of a proportion."""
    record = json.loads((embedded_folder(DEMO_TEACHER) / "record.json").read_text())["scores"][spec]
    benchmark = load_sql_benchmark(spec).take(64, seed=0)
    model = load_any(DEMO_TEACHER, PromptSettings.model_validate(PROMPT), precision="float32")
    answers = predict(model, benchmark, tmp_path / "answers.jsonl")
    expected = record["right"] / record["of"]
    assert judge(answers, benchmark) == pytest.approx(expected, abs=3 * (0.25 / 64) ** 0.5)
