"""Writing completions: what an example gets depends on its own random stream, not on who shares its batch."""

import torch

from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import load_data, prepare
from distilsql.models.generate import GenerationOptions
from distilsql.training.sampling import TreeOfExamples
from distilsql.training.sources.writing import write_completions
from distilsql.training.window_tree import Use, as_window_trees


def test_seed_use_epoch_and_example_decide_what_is_written(recipe):
    settings = recipe("gkd-rkl", "train.precision=float32")
    engines = load_engines(settings, torch.device("cpu"))
    prepared = prepare(load_data(settings)[0], engines.tokenizer, settings.prompt, training=True)
    items = as_window_trees(
        prepared, [TreeOfExamples((0, 1, 2), 0), TreeOfExamples((2, 0), 0), TreeOfExamples((0, 1, 2), 1)]
    )
    options = GenerationOptions(engines.eos_token_id, engines.vocabulary_size, 12, temperature=1.0)

    def written(seed: int, use: Use):
        batches = [items[:1], items[1:]]
        together, apart = write_completions(engines.student, None, batches, options, seed=seed, use=use)
        return [*together, *apart]

    first, shuffled, next_epoch = written(0, Use.SAMPLING)
    assert shuffled == [first[2], first[0]]
    assert next_epoch != first
    assert written(0, Use.SAMPLING)[0] == first
    assert written(1, Use.SAMPLING)[0] != first
    assert written(0, Use.TEACHER)[0] != first
