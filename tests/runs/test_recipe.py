"""Recipes: defaults, overrides, precedence, and refusals that name the key that was meant."""

from pathlib import Path
from typing import get_args

import pytest

from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.methods import METHODS
from distilsql.errors import RecipeError
from distilsql.runs.method_sections import DivergenceName
from distilsql.runs.recipe import known_keys, load_recipe, make_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))
MINIMAL = {"method": "sft", "student": {"path": "m"}, "data": {"train": "demo:train"}, "train": {"steps": 3}}


def test_defaults_are_the_papers():
    recipe = make_recipe(MINIMAL)
    assert recipe.train.learning_rate == 2e-4
    assert (recipe.student.lora_rank, recipe.student.lora_scale) == (64, 32)
    assert recipe.distill.mask_share == 0.2
    assert recipe.gold_weight == 1


def test_precedence_is_flag_then_recipe_then_default(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        "method='sft'\n[student]\npath='m'\n[data]\ntrain='demo:train'\n[train]\nsteps=3\nclip_norm=9.0\n"
    )
    assert load_recipe(path).train.clip_norm == 9
    assert load_recipe(path, ["train.clip_norm=2"]).train.clip_norm == 2
    assert load_recipe(path, ["data.root=/some/where"]).data.root == "/some/where"
    assert load_recipe(path).name == "mine"


def test_the_saved_recipe_gives_the_same_recipe(tmp_path):
    recipe = make_recipe(MINIMAL, ["student.keep_layers=[0, 2]", "train.trackers=['tensorboard']", "seed=7"])
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "recipe.toml") == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recipe_that_comes_with_the_package_is_one(path):
    assert load_recipe(path).row.name in METHODS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rat=1", "did you mean train.learning_rate"),
        ("distil.mask_share=0.1", "did you mean distill"),
        ("student.rank=4", "unknown key student.rank"),
        ("train.steps=zero", "train.steps"),
        ("distill.mask_share=1.5", "distill.mask_share"),
        ("distill.jsd_beta=1", "distill.jsd_beta"),
        ("method=rkd", "needs a teacher"),
        ("distill.gold_weight=0", "no loss left"),
        ("distill.divergence=kl", "distill.divergence"),
        ("method=kidd", "did you mean kid"),
        ("train.evaluate_every_steps=5", "data.valid"),
        ("student={path='m', keep_layers=2, save_merged=false}", "save the merged model"),
        ("train.steps", "section.key=value"),
        ("method.x=1", "not a section"),
    ],
)
def test_bad_values_are_refused_with_the_cure(override, message):
    with pytest.raises(RecipeError, match=message.replace(".", r"\.")):
        make_recipe(MINIMAL, [override])


def test_one_length_of_a_training_takes_the_place_of_the_other():
    assert make_recipe(MINIMAL, ["train.epochs=2"]).train.steps is None
    by_epochs = {**MINIMAL, "train": {"epochs": 4}}
    assert make_recipe(by_epochs, ["train.steps=3"]).train.epochs is None
    for refused in (["train.epochs=2", "train.steps=3"], []):
        both = {**MINIMAL, "train": {"epochs": 4, "steps": 1}}
        with pytest.raises(RecipeError, match=r"exactly one of train\.steps and train\.epochs"):
            make_recipe(both, refused)


def test_the_names_of_divergences_are_those_that_exist():
    assert set(get_args(DivergenceName)) == set(DIVERGENCES)


def test_every_key_is_documented():
    undocumented = [key for key, field in known_keys().items() if not field.description]
    assert set(undocumented) <= {"seed", "train.log_every_steps", "train.save_every_steps"}
