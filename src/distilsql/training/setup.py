"""What a training needs before its first step."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from torch.distributed.device_mesh import init_device_mesh

from distilsql.data.benchmark import Benchmark, SqlBenchmark
from distilsql.errors import ModelError, RunError
from distilsql.inference.given import NOTHING_GIVEN, Given
from distilsql.inference.loading import Engines, load_engines
from distilsql.inference.prepare import Prepared, load_data, prepare
from distilsql.metrics.evaluate import run_golds
from distilsql.metrics.golds import GoldResults
from distilsql.models.layout_check import tree_is_exact
from distilsql.models.load import check_positions
from distilsql.models.tree import Completion, PromptTree, as_branches
from distilsql.progress import progress
from distilsql.runs.recipe import Recipe
from distilsql.training.sampling import Sampler, WindowStream
from distilsql.training.sources.source import source_class
from distilsql.training.window_tree import WindowTree

log = logging.getLogger(__name__)
COMPARED_QUESTIONS = 3  # of a tree with padded rows


def check_trackers(names: Sequence[str]) -> None:
    """Raises RunError for a tracker that accelerate does not know or that is not installed."""
    known = {kind.value for kind in LoggerType}
    installed = {str(kind) for kind in get_available_trackers()} | {LoggerType.ALL.value}
    for name in names:
        if name not in known:
            raise RunError(
                f"train.trackers: there is no tracker {name!r}. Known: {', '.join(sorted(known))}."
            )
        if name not in installed:
            package = "'distilsql[tensorboard]'" if name == LoggerType.TENSORBOARD.value else name
            raise RunError(
                f"train.trackers: {name} is not installed, so nothing would be tracked: pip install {package}."
            )


@dataclass(frozen=True)
class TrainingData:
    """The training data, and the validation data with its gold results."""

    benchmark: Benchmark
    valid: Benchmark | None
    golds: GoldResults = field(default_factory=GoldResults)

    @property
    def benchmarks(self) -> list[Benchmark]:
        return [self.benchmark, self.valid] if self.valid else [self.benchmark]


def load_training_data(recipe: Recipe, *, is_judging: bool, given: Given = NOTHING_GIVEN) -> TrainingData:
    """`is_judging`: whether this process evaluates during training. Raises BrokenGolds if it does and golds do not run:
    now rather than at the first evaluation."""
    data = TrainingData(*load_data(recipe, given))
    if is_judging and recipe.train.evaluate_every_steps is not None and isinstance(data.valid, SqlBenchmark):
        run_golds(data.valid, data.golds)
    for first in data.benchmark.skipped[:1]:
        log.warning(f"{len(data.benchmark.skipped)} examples left out: {first.reason}")
    return data


def load_training_engines(
    recipe: Recipe, device: torch.device, *, given: Given = NOTHING_GIVEN, processes: int = 1
) -> Engines:
    """The models of a recipe; of several processes each holds a part of them."""
    with progress("loading models"):
        longest_tokens = source_class(recipe).longest_tokens(recipe)
        mesh = init_device_mesh(device.type, (processes,)) if processes > 1 else None
        return load_engines(recipe, device, longest_tokens=longest_tokens, given=given, mesh=mesh)


def prepare_examples(recipe: Recipe, benchmark: Benchmark, engines: Engines) -> Prepared:
    """Tokenise the examples; a message says what did not fit."""
    prepared = prepare(
        benchmark,
        engines.tokenizer,
        recipe.prompt,
        training=True,
        filter_seed=recipe.seed,
        translator=engines.translator,
    )
    for sentence in prepared.lengths.sentences():
        log.info(sentence)
    if engines.teacher is not None and prepared.for_teacher is not None and recipe.teacher is not None:
        own = prepared.for_teacher
        longest = max(
            len(own.prefixes[each.prefix_key]) + len(each.question) + len(each.gold) for each in own.examples
        )
        sentence = check_positions(engines.teacher.causal_lm, longest, recipe.teacher.path)
        if sentence:
            log.warning(sentence)
    return prepared


def window_stream(recipe: Recipe, prepared: Prepared) -> WindowStream:
    return WindowStream(
        Sampler(
            [example.prefix_key for example in prepared.examples],
            recipe.seed,
            recipe.train.questions_per_tree,
            recipe.train.trees_per_step,
            recipe.train.largest_tree,
        )
    )


def _few(tree: PromptTree, completions: Sequence[Completion]) -> tuple[PromptTree, list[Completion]]:
    """The longest questions of a tree, and their completions: padded rows run the whole prefix for each.

    The shortest completion comes first. It has nothing beside it to see, so if a model does not keep questions apart,
    most positions still differ, and with them the median.
    """
    pairs = sorted(
        zip(tree.questions, completions, strict=True), key=lambda pair: -len(pair[0]) - len(pair[1])
    )
    few = sorted(pairs[:COMPARED_QUESTIONS], key=lambda pair: len(pair[1]))
    return PromptTree(tree.prefix, tuple(question for question, _ in few)), [gold for _, gold in few]


def choose_layouts(engines: Engines, recipe: Recipe, first_window: Sequence[WindowTree]) -> None:
    """`train.share_prefix`: run trees, or the padded layout where a model cannot run them exactly, such as the longest
    of `first_window`."""
    item = max(first_window, key=lambda tree: tree.longest_tokens)
    choice = recipe.train.share_prefix
    golds = item.golds
    models = {"student": (engines.student, item.tree, golds, engines.vocabulary_size)}
    if engines.teacher is not None:
        tree = item.teacher_tree or item.tree
        read = (
            golds if engines.translator is None else [engines.translator.of(gold).teacher for gold in golds]
        )
        models["teacher"] = (engines.teacher, tree, read, engines.teacher_vocabulary_size)
    for role, (model, whole, completions, size) in models.items():
        tree, few = _few(whole, completions)
        exact = choice != "auto" or tree_is_exact(
            model,
            tree,
            as_branches(few),
            size,
            longest_tokens=recipe.prompt.longest_tokens,
            chunk_rows=recipe.train.loss_chunk_rows,
        )
        if choice == "off" or not exact:
            model.layout = "padded"
        if role == "student" and recipe.train.recompute_activations and model.runs_dense_trees:
            raise ModelError(
                "train.recompute_activations runs layers twice, and this student attends to trees with a dense mask "
                "and a cache, which would then hold each token twice. Set train.share_prefix = off, or leave it out."
            )
        if not exact:
            log.warning(f"The {role} does not give the same result on a tree, so it runs padded (slower).")
