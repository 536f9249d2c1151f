"""Write model/: the finished student as a transformers folder, with its model card."""

from distilsql.errors import RunError
from distilsql.files import new_folder
from distilsql.inference.loading import Engines
from distilsql.models.load import save_model
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import Recipe
from distilsql.training.model_card import write_model_card


def write_model(recipe: Recipe, run: RunFolder, engines: Engines, *, steps: int, examples_seen: int) -> None:
    """Write the model folder, from a student whose weights are whole in this process.

    Raises:
        RunError: it cannot be written; then nothing of it is left.
    """
    try:
        with new_folder(run.model, replacing=True) as folder:
            save_model(
                engines.student.model,
                engines.tokenizer,
                folder,
                merge_adapter=recipe.student.save_merged,
                is_gathered=engines.student.sharding.is_sharded,
            )
            write_model_card(recipe, folder, steps=steps, examples_seen=examples_seen)
    except Exception as error:  # safetensors reports a full disk as its own error type
        raise RunError(
            f"The model of {run.path} could not be written: {error}. The checkpoint is kept; free some disk space and "
            "run the same command again, which then only writes the model."
        ) from error
