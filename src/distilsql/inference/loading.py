"""The models of a run, loaded and ready: student, teacher, tokenizer, and what they share."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import DeviceMesh

from distilsql.errors import ModelError
from distilsql.inference.given import NOTHING_GIVEN, Given
from distilsql.models.compiled_layers import compile_layers
from distilsql.models.layout_check import check_head, small_tree, tree_is_exact
from distilsql.models.load import (
    DTYPES,
    Placement,
    Precision,
    add_lora,
    check_outputs,
    check_positions,
    freeze,
    is_spread,
    keep_layers,
    load_model,
    load_tokenizer,
    shared_vocabulary_size,
)
from distilsql.models.precision import AskedPrecision, settled_precision
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.recompute import recompute_activations
from distilsql.models.sharding import Sharded, reshard
from distilsql.models.tensor_parallel import TensorParallel, mesh_of_machine, prefix_cache_of
from distilsql.models.translation import Translator
from distilsql.models.tree_model import TreeModel, base_model
from distilsql.progress import progress
from distilsql.runs.recipe import Recipe
from distilsql.runs.sections import TeacherOptions
from distilsql.threads import fit_threads

log = logging.getLogger(__name__)


@dataclass
class Engines:
    """`vocabulary_size` is the shared number of leading vocabulary entries, to which all logits are cut.

    With a `translator` the teacher has a vocabulary of its own (`teacher.bridge`), and that number is the student's.
    """

    student: TreeModel
    tokenizer: Any
    vocabulary_size: int
    teacher: TreeModel | None = None
    teacher_prefixes: PrefixCache | None = None
    translator: Translator | None = None

    @property
    def eos_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def teacher_tokenizer(self) -> Any:
        return self.tokenizer if self.translator is None else self.translator.teacher_tokenizer

    @property
    def teacher_vocabulary_size(self) -> int:
        return self.vocabulary_size if self.translator is None else self.translator.teacher_size

    @contextmanager
    def generating(self) -> Iterator[None]:
        """For work whose passes differ in number from process to process, without gradient. All enter and leave it
        together; each holds the whole student in it, and gathers the teacher layer by layer."""
        with ExitStack() as stack:
            stack.enter_context(self.student.sharding.whole())
            if self.teacher is not None:
                stack.enter_context(self.teacher.sharding.in_step())
            yield


def load_engines(
    recipe: Recipe,
    device: torch.device,
    *,
    longest_tokens: int | None = None,
    given: Given = NOTHING_GIVEN,
    mesh: DeviceMesh | None = None,
) -> Engines:
    """Load everything a recipe names, but for what is `given`. `longest_tokens` of one question are the most that a
    model is fed; by default a prompt and its completion. Models are spread over the processes of a `mesh`.

    Raises:
        ModelError: a model or tokenizer that is missing or does not fit.
    """
    options = recipe.student
    precision = settled_precision(recipe.train.precision, given.student_config or options.path, device)
    torch.manual_seed(recipe.seed)
    tokenizer = given.tokenizer or load_tokenizer(options.path)
    model: Any = given.student_weights(precision) or load_model(options.path, precision)
    if options.keep_layers is not None:
        keep_layers(model, options.keep_layers)
    teacher: TreeModel | None = None
    if recipe.loads_teacher and recipe.teacher is not None:
        if given.teacher is not None:
            weights = given.teacher_weights(precision, device)
            teacher = _placed_teacher(weights, recipe.teacher, precision, device, mesh)
        else:
            teacher = load_teacher(recipe.teacher, precision, device, mesh)
    teacher_path = recipe.teacher.path if teacher is not None and recipe.teacher else None
    translator = _translator(recipe, tokenizer, teacher, given)
    vocabulary_size = shared_vocabulary_size(
        model,
        None if teacher is None or translator is not None else teacher.causal_lm,
        tokenizer,
        # One in memory reads the student's tokens.
        None if given.teacher is not None or translator is not None else teacher_path,
    )
    if options.tuning == "lora":
        model = add_lora(model, rank=options.lora_rank, scale=options.lora_scale)
    if recipe.train.compile:
        if mesh is not None:
            raise ModelError(
                "train.compile = true is for one process: compiled layers have not been tried on sharded weights. "
                "Leave it out."
            )
        # Before their activations are recomputed, so that what is run again is compiled, too.
        compile_layers(base_model(model))
        if teacher is not None:
            compile_layers(teacher.causal_lm)
    if recipe.train.recompute_activations:
        recompute_activations(base_model(model))
    engines = Engines(
        student=_placed(model, precision, device, mesh),
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        teacher=teacher,
        translator=translator,
    )
    fit_threads(*(one.model for one in (engines.student, teacher) if one is not None))
    roles = [(engines.student, options.path, vocabulary_size)]
    if teacher is not None:
        roles.append((teacher, str(teacher_path), engines.teacher_vocabulary_size))
        engines.teacher_prefixes = prefix_cache_of(teacher, recipe.train.teacher_cache_mb * 2**20)
    for tree_model, path, size in roles:
        _check_model(tree_model, size, longest_tokens or recipe.prompt.longest_tokens, path)
        reshard(tree_model.causal_lm)
    return engines


def _translator(recipe: Recipe, tokenizer: Any, teacher: TreeModel | None, given: Given) -> Translator | None:
    """For a teacher that reads its own tokens; None where it reads the student's.

    Raises:
        ModelError: the teacher is in memory, without a tokenizer, or one that cannot be translated.
    """
    if teacher is None or recipe.teacher is None or recipe.teacher.bridge == "none":
        return None
    if given.teacher is not None:
        raise ModelError(
            "teacher.bridge needs the teacher's tokenizer, and a teacher in memory comes without: save both into a "
            "folder (save_pretrained) and give its path as teacher.path."
        )
    own = load_tokenizer(recipe.teacher.path)
    check_outputs("teacher", teacher.causal_lm, len(own))
    translator = Translator(tokenizer, own, recipe.student.path, recipe.teacher.path)
    known = translator.vocabularies
    log.info(
        f"The teacher reads its own tokens: {len(known.student_C):,} of its {known.teacher_size:,} are among the "
        f"student's {known.student_size:,} too."
    )
    return translator


def _check_model(model: TreeModel, vocabulary_size: int, longest_tokens: int, path: str) -> None:
    sentence = check_positions(model.causal_lm, longest_tokens, path)
    if sentence:
        log.warning(sentence)
    check_head(model, vocabulary_size, path)


def load_asked(
    path: str, precision: AskedPrecision, *, longest_tokens: int, adapter: str | None = None
) -> tuple[TreeModel, Any, int]:
    """A model that only answers, its tokenizer, and how many tokens that has.

    Raises:
        ModelError: nothing loadable at the path, or as `check_asked_model` has it.
    """
    with progress(f"loading {path}"):
        tokenizer = load_tokenizer(path)
        device = Accelerator().device
        model = load_model(path, settled_precision(precision, path, device), adapter=adapter).to(device)
        fit_threads(model)
        size = shared_vocabulary_size(model, None, tokenizer)
        tree_model = TreeModel(model)
        check_asked_model(tree_model, size, longest_tokens, path)
    return tree_model, tokenizer, size


def check_asked_model(model: TreeModel, vocabulary_size: int, longest_tokens: int, path: str) -> None:
    """Check a model that only answers questions; run it padded if it is not exact on trees.

    Raises:
        ModelError: distilsql would compute a different distribution, or it has too few positions.
    """
    _check_model(model, vocabulary_size, longest_tokens, path)
    tree = small_tree(vocabulary_size)
    if not tree_is_exact(model, *tree, vocabulary_size, longest_tokens=longest_tokens):
        model.layout = "padded"
        log.warning(
            f"{path} does not give the same result on a tree, so it answers one question at a time (slower)."
        )


def _placed(model: Any, precision: Precision, device: torch.device, mesh: DeviceMesh | None) -> TreeModel:
    """On `device`; of several processes each holds a part."""
    if mesh is None:
        return TreeModel(model.to(device))
    return TreeModel(model, sharding=Sharded(base_model(model), mesh, DTYPES[precision], device))


def _placed_teacher(
    frozen: Any, options: TeacherOptions, precision: Precision, device: torch.device, mesh: DeviceMesh | None
) -> TreeModel:
    """On `device`; of several processes each holds what `teacher.across_processes` says."""
    if mesh is None or options.across_processes == "whole":
        return _placed(frozen, precision, device, None)
    if options.across_processes == "tensor_parallel":
        parts = TensorParallel(frozen, mesh_of_machine(device.type), device, options.path)
        return TreeModel(frozen, sharding=parts)
    return _placed(frozen, precision, device, mesh)


def load_teacher(
    options: TeacherOptions, precision: Precision, device: torch.device, mesh: DeviceMesh | None = None
) -> TreeModel:
    """Frozen, whole and on `device`, or spread over devices and in fewer bits as the options say, or over the processes
    of a `mesh`.

    Raises:
        ModelError: nothing loadable, or tokens would go in on another device than the student's, `device`.
    """
    if mesh is not None and options.device_map is not None:
        raise ModelError(
            f"teacher.device_map = {options.device_map} spreads the teacher over the devices of one process, and there "
            f"are {mesh.size()}. Leave it out: each process then holds a part (teacher.across_processes = sharded)."
        )
    if mesh is not None and options.quantization == "none":
        weights = freeze(load_model(options.path, precision, adapter=options.adapter))
        return _placed_teacher(weights, options, precision, device, mesh)
    model = _teacher_weights(options, precision, device)
    # Of the ways to attend to a tree, only the stock forward follows a model from device to device.
    teacher = TreeModel(model, attention="dense" if is_spread(model) else None)
    # `cuda` names the same device as `cuda:0` and is not equal to it; a tensor says which device it is on.
    device = torch.empty(0, device=device).device
    if teacher.device != device:
        raise ModelError(
            f"teacher.device_map = {options.device_map} puts the teacher's input on {teacher.device}, and the "
            f"student is on {device}: their distributions are compared on one device. Use teacher.device_map = "
            "auto, or none."
        )
    return teacher


def _teacher_weights(options: TeacherOptions, precision: Precision, device: torch.device) -> Any:
    if options.device_map is None and options.quantization == "none":
        return freeze(load_model(options.path, precision, adapter=options.adapter)).to(device)
    placement = Placement(device, options.device_map, options.quantization)
    return freeze(load_model(options.path, precision, adapter=options.adapter, placement=placement))
