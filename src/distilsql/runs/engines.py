"""The models of a run, loaded and ready: student, teacher, tokenizer, and what they share."""

import logging
from dataclasses import dataclass
from typing import Any

import torch

from distilsql.distill.methods import Source
from distilsql.errors import ModelError
from distilsql.models.layout_check import check_head, small_tree, tree_is_exact
from distilsql.models.load import (
    Placement,
    Precision,
    add_lora,
    check_positions,
    freeze,
    is_spread,
    keep_layers,
    load_model,
    load_tokenizer,
    shared_vocabulary_size,
)
from distilsql.models.precision import settled_precision
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.switch import BlockLength
from distilsql.models.tree_model import TreeModel
from distilsql.models.vllm_source import VllmSource
from distilsql.runs.recipe import PromptSettings, Recipe, TeacherOptions
from distilsql.runs.teacher_hidden import TeacherHidden
from distilsql.runs.threads import fit_threads
from distilsql.runs.window_tree import WindowTree, as_branches

log = logging.getLogger(__name__)


@dataclass
class Engines:
    """`vocabulary_size` is the shared number of leading vocabulary entries, to which all logits are cut.

    With `teacher_hidden`, gold completions are trained on and the teacher's side of them is read from disk.
    """

    student: TreeModel
    tokenizer: Any
    vocabulary_size: int
    mask_token_id: int
    teacher: TreeModel | None = None
    teacher_prefixes: PrefixCache | None = None
    teacher_hidden: TeacherHidden | None = None

    @property
    def eos_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)


def load_engines(recipe: Recipe, device: torch.device) -> Engines:
    """Load everything a recipe names.

    Raises:
        ModelError: a model or tokenizer that is missing or does not fit.
    """
    options = recipe.student
    precision = settled_precision(recipe.train.precision, options.path, device)
    torch.manual_seed(recipe.seed)
    tokenizer = load_tokenizer(options.path)
    model: Any = load_model(options.path, precision)
    if options.keep_layers is not None:
        keep_layers(model, options.keep_layers)
    teacher: TreeModel | None = None
    if recipe.row.needs_teacher and recipe.teacher is not None:
        teacher = load_teacher(recipe.teacher, precision, device)
    teacher_path = recipe.teacher.path if teacher is not None and recipe.teacher else None
    vocabulary_size = shared_vocabulary_size(
        model, None if teacher is None else teacher.causal_lm, tokenizer, teacher_path
    )
    if options.tuning == "lora":
        model = add_lora(model, rank=options.lora_rank, scale=options.lora_scale)
    engines = Engines(
        student=TreeModel(model.to(device)),
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        mask_token_id=mask_token_id(tokenizer, recipe.distill.mask_token),
        teacher=teacher,
    )
    fit_threads(*(one.model for one in (engines.student, teacher) if one is not None))
    roles = [(engines.student, options.path)]
    if teacher is not None:
        roles.append((teacher, str(teacher_path)))
        engines.teacher_prefixes = PrefixCache(teacher, recipe.train.teacher_cache_mb * 2**20)
    for tree_model, path in roles:
        _check_model(tree_model, vocabulary_size, longest_tokens(recipe), path)
    return engines


def _check_model(model: TreeModel, vocabulary_size: int, longest_tokens: int, path: str) -> None:
    sentence = check_positions(model.causal_lm, longest_tokens, path)
    if sentence:
        log.warning(sentence)
    check_head(model, vocabulary_size, path)


def longest_tokens(recipe: Recipe) -> int:
    """The most tokens of one question that a model is fed; under SWITCH, with those that are drafted in vain."""
    drafted = recipe.switch.block_length or max(BlockLength.CHOICES)
    return recipe.prompt.longest_tokens + (drafted - 1 if recipe.row.source is Source.SWITCH else 0)


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


def check_asked_model(model: TreeModel, vocabulary_size: int, prompt: PromptSettings, path: str) -> None:
    """Check a model that is only asked, and run it padded where it runs no tree exactly.

    Raises:
        ModelError: its distribution would be another one here, or it has no positions for prompt and completion.
    """
    _check_model(model, vocabulary_size, prompt.longest_tokens, path)
    tree = small_tree(vocabulary_size)
    if not tree_is_exact(model, *tree, vocabulary_size, longest_tokens=prompt.longest_tokens):
        model.layout = "padded"
        log.warning(
            f"{path} does not give the same result on a tree: it answers one question at a time (slower)."
        )


def load_teacher(options: TeacherOptions, precision: Precision, device: torch.device) -> TreeModel:
    """Frozen, whole and on `device`, or spread over devices and in fewer bits as the options say.

    Raises:
        ModelError: nothing loadable, or tokens would go in on another device than the student's, `device`.
    """
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


def vllm_source(recipe: Recipe, model: TreeModel, tokenizer: Any) -> VllmSource:
    """A vLLM engine that writes as `model` does. Raises ModelError where vLLM is missing."""
    return VllmSource(
        model.model,
        tokenizer,
        precision=model.precision,
        memory_share=recipe.generation.vllm_memory_share,
        max_tokens=recipe.prompt.budget_tokens + recipe.prompt.max_completion_tokens,
    )


def mask_token_id(tokenizer: Any, token: str) -> int:
    """The id of KID's mask token. `auto` is the first of BOS, UNK, PAD, EOS that exists (the paper: “<s>”).

    Raises:
        ModelError: the named token is not one token of the vocabulary.
    """
    if token == "auto":
        candidates = (
            tokenizer.bos_token_id,
            tokenizer.unk_token_id,
            tokenizer.pad_token_id,
            tokenizer.eos_token_id,
        )
        return int(next(candidate for candidate in candidates if candidate is not None))
    if token not in tokenizer.get_vocab():
        raise ModelError(
            f"distill.mask_token = {token!r} is not a token of the student's vocabulary. "
            f"Choose one that is, such as {tokenizer.eos_token!r}."
        )
    return int(tokenizer.convert_tokens_to_ids(token))
