"""What a recipe leaves open about its prompts is settled once: shared on own pairs, as published on benchmarks."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from distilsql.data.load import load_benchmark
from distilsql.databases.database import open_database
from distilsql.experiments.state import say_the_same
from distilsql.inference.predict import recipe_of
from distilsql.inference.prepare import prepare, shown_first
from distilsql.models.load import load_tokenizer
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe, load_recipe, make_recipe
from distilsql.runs.sections import PromptSettings
from distilsql.training import settle as settling
from distilsql.training.settle import settle_prompt, settled_for_run
from distilsql.training.train import train

CPU = torch.device("cpu")


def opened(recipe: Recipe, **prompt: object) -> Recipe:
    """The recipe with its prompt as `prompt` says, and all else about it open."""
    return recipe.with_prompt(PromptSettings(max_completion_tokens=40, **prompt))  # type: ignore[arg-type]


@pytest.fixture
def many_tables(world: Path) -> Path:
    """Tables that only a few pairs ask about, far beyond the tiny models' positions."""
    with closing(sqlite3.connect(world / "singers.sqlite")) as connection:
        for number in range(40):
            columns = ", ".join(f"field_{column} TEXT" for column in range(8))
            connection.execute(f"CREATE TABLE part_{number} (id INTEGER PRIMARY KEY, {columns})")
        connection.commit()
    with (world / "pairs.jsonl").open("a") as file:
        file.write(json.dumps({"question": "Which field?", "sql": "SELECT field_7 FROM part_39"}) + "\n")
    return world


def test_the_whole_schema_is_the_prompt_where_it_fits(world, recipe):
    settled, said = settle_prompt(opened(recipe("sft")), CPU)
    prompt = settled.prompt
    assert (prompt.schema_filter, prompt.quoting, said) == ("fixed", "sqlite", "")
    assert not prompt.is_open
    assert prompt.shown_first == {}
    prepared = prepare(
        load_benchmark(str(world / "pairs.jsonl"), database=world / "singers.sqlite"),
        load_tokenizer(settled.student.path),
        prompt,
        training=True,
    )
    assert len(prepared.prefixes) == 1
    assert "its whole schema" in prepared.lengths.sentences()[0]


def test_a_schema_beyond_the_positions_is_cut_the_same_for_all_by_what_training_uses(many_tables, recipe):
    settled, said = settle_prompt(opened(recipe("kid")), CPU)
    prompt = settled.prompt
    assert "positions" in said
    assert prompt.longest_tokens <= 1024
    assert prompt.shown_first["singers"][0] in [("singer", "name"), ("singer", "age")]
    assert ("part_39", "field_7") in prompt.shown_first["singers"]
    benchmark = load_benchmark(str(many_tables / "pairs.jsonl"), database=many_tables / "singers.sqlite")
    tokenizer = load_tokenizer(settled.student.path)
    for training in (True, False):
        prepared = prepare(benchmark, tokenizer, prompt, training=training)
        assert len(prepared.prefixes) == 1
        (prefix,) = prepared.prefixes.values()
        assert "part_39.field_7" in tokenizer.decode(prefix)
        assert "fixed cut" in prepared.lengths.sentences()[0]
        assert prepared.lengths.dropped == ()


def test_memory_and_attention_windows_are_limits_too(world, recipe, monkeypatch):
    one = opened(recipe("sft"))
    positions, why = settling.prompt_limit(one, CPU)
    assert "positions" in why
    monkeypatch.setattr(settling, "attention_window", lambda config: 300)
    assert settling.prompt_limit(one, CPU)[0] < min(positions, 300)
    monkeypatch.setattr(settling, "device_memory_bytes", lambda device: 2**20)
    assert "quarter of the memory" in settling.prompt_limit(one, CPU)[1]


def test_published_benchmarks_are_asked_as_before():
    spider = make_recipe(
        {
            "method": "sft",
            "student": {"path": "nowhere"},
            "data": {"train": "spider:train"},
            "train": {"steps": 1},
        }
    )
    prompt = settle_prompt(spider, CPU)[0].prompt
    assert (prompt.schema_filter, prompt.max_prompt_tokens, prompt.quoting) == ("when_needed", 1024, "codes")


def test_what_is_said_is_kept_and_a_padded_layout_shares_nothing(recipe):
    said = opened(recipe("sft"), schema_filter="when_needed", max_prompt_tokens=300, quoting="codes")
    assert settle_prompt(said, CPU)[0] == said
    padded = opened(recipe("sft", "train.share_prefix=off"))
    prompt = settle_prompt(padded, CPU)[0].prompt
    assert (prompt.schema_filter, prompt.max_prompt_tokens) == ("when_needed", 1024)


def test_a_run_keeps_what_was_chosen(many_tables, recipe, tmp_path, monkeypatch):
    """Even where the machine it goes on with, or the pairs that were trained on, would choose otherwise."""
    given = opened(recipe("sft", "train.steps=2"))
    run = train(given, tmp_path / "run")
    kept = recipe_of(run).prompt
    assert kept.schema_filter == "fixed"
    assert kept.shown_first
    assert not kept.is_open
    monkeypatch.setattr(settling, "device_memory_bytes", lambda device: 2**20)
    again, said = settled_for_run(given, run.path, Accelerator())
    assert (again.prompt, said) == (kept, [])
    assert train(given, run.path).path == run.path  # the same recipe: finished, not refused
    assert say_the_same(recipe_of(run), given)
    assert not say_the_same(
        recipe_of(run), given.with_prompt(given.prompt.model_copy(update={"values": False}))
    )
    (many_tables / "pairs.jsonl").unlink()
    database = open_database(many_tables / "singers.sqlite")
    assert shown_first(kept, database) == kept.shown_first["singers"]


def test_a_database_by_another_name_is_cut_as_it_was_trained(world, recipe):
    prompt = PromptSettings(schema_filter="fixed", shown_first={"shop": [("singer", "age")]})
    database = open_database(world / "singers.sqlite")
    assert shown_first(prompt, database) == [("singer", "age")]
    other = PromptSettings(schema_filter="fixed", shown_first={"shop": [("gone", "age")]})
    assert shown_first(other, database) == []


def test_runs_of_an_earlier_version_are_asked_as_they_were_trained(recipe, tmp_path):
    """Their recipes lack the newer keys."""
    old = recipe("sft", "prompt.schema_filter=when_needed", "prompt.max_prompt_tokens=400")
    text = old.to_toml().replace('quoting = "auto"\n', "")
    assert "quoting" not in text
    folder = RunFolder(tmp_path)
    folder.recipe.write_text(text)
    folder.log.touch()
    prompt = recipe_of(folder).prompt.as_published()
    assert (prompt.schema_filter, prompt.max_prompt_tokens, prompt.quoting) == ("when_needed", 400, "codes")
    assert settled_for_run(old, tmp_path, Accelerator())[0].prompt.as_published() == prompt


def test_the_saved_recipe_keeps_what_is_shown_first(recipe, tmp_path):
    prompt = PromptSettings(shown_first={"my shop.v2": [("order", "a.b"), ("order", 'say "x"')]})
    file = tmp_path / "recipe.toml"
    file.write_text(recipe("sft").with_prompt(prompt).to_toml())

    assert load_recipe(file).prompt.shown_first == prompt.shown_first
