"""What a training needs before its first step."""

import logging

from distilsql.inference.loading import Engines
from distilsql.models.layout_check import tree_is_exact
from distilsql.models.tree import as_branches
from distilsql.runs.recipe import Recipe
from distilsql.training.window_tree import WindowTree

log = logging.getLogger(__name__)


def choose_layouts(engines: Engines, recipe: Recipe, item: WindowTree) -> None:
    """`train.share_prefix`: run trees, or the padded layout where a model cannot run them, such as `item`, exactly."""
    choice = recipe.train.share_prefix
    models = {"student": engines.student, "teacher": engines.teacher}
    for role, model in models.items():
        if model is None:
            continue
        exact = choice != "auto" or tree_is_exact(
            model,
            item.tree,
            as_branches(item.golds),
            engines.vocabulary_size,
            longest_tokens=recipe.prompt.longest_tokens,
            chunk_rows=recipe.train.loss_chunk_rows,
        )
        if choice == "off" or not exact:
            model.layout = "padded"
        if not exact:
            log.warning(f"The {role} does not give the same result on a tree: it runs padded (slower).")
