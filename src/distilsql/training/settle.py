"""Resolving what a recipe leaves open (`auto`) before a run begins: precision, by the machine, and the prompt.

For published benchmarks, prompts are those of the published results. Your own pairs are often many questions about one
database, which the engine runs fastest when they share a prefix: there the prompt shows the whole schema, as far as
the models' positions and a share of the memory allow, and beyond that a cut that is the same for all questions. The
run's recipe records what was chosen, so that resuming, `predict` and `ask` use the same.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.load import is_own
from distilsql.inference.given import NOTHING_GIVEN, Given
from distilsql.inference.prepare import PromptTokens, load_data, prompt_options, shared_prefixes
from distilsql.models.layout_check import attention_window
from distilsql.models.load import load_tokenizer
from distilsql.models.precision import choose_precision
from distilsql.prompts.codes import build_prefix, question_text, suffix_of
from distilsql.prompts.relevance import gold_columns
from distilsql.runs.folder import begun_in
from distilsql.runs.recipe import Recipe
from distilsql.runs.sections import PUBLISHED_PROMPT_TOKENS, PromptSettings
from distilsql.training.sources.source import source_class

MEMORY_SHARE = 0.25  # of the device's memory, for what a prompt's tokens leave behind for the backward pass
_HEADROOM = 0.1  # of a prefix: sample values change, and the run's prompts are to stay whole
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def settled_for_run(
    recipe: Recipe, resumed: Path | None, accelerator: Accelerator, given: Given = NOTHING_GIVEN
) -> tuple[Recipe, list[str]]:
    """The recipe with precision and prompt resolved, the same in every process, and messages about the choices.

    A run that has begun in the folder `resumed` goes on as it began; otherwise the machine of the first process
    decides.

    Raises:
        DataError, ModelError: what the recipe names is missing or does not fit.
    """
    chosen: list[Any] = [recipe, []]
    if accelerator.is_main_process:
        begun = begun_in(resumed) if resumed else None
        recipe, of_precision = _with_precision(recipe, begun, accelerator.device, given)
        recipe, of_prompt = _with_prompt(recipe, begun, accelerator.device, given)
        chosen = [recipe, [sentence for sentence in (of_precision, of_prompt) if sentence]]
    settled, said = broadcast_object_list(chosen)
    return settled, said


def _with_precision(
    recipe: Recipe, begun: Recipe | None, device: torch.device, given: Given
) -> tuple[Recipe, str]:
    if recipe.train.precision != "auto":
        return recipe, ""
    if begun is not None and begun.train.precision != "auto":
        return recipe.settled(begun.train.precision), ""
    choice = choose_precision(given.student_config or recipe.student.path, device)
    return recipe.settled(choice.precision), str(choice)


def _with_prompt(
    recipe: Recipe, begun: Recipe | None, device: torch.device, given: Given
) -> tuple[Recipe, str]:
    if not recipe.prompt.is_open and recipe.prompt.schema_filter != "fixed":
        return recipe, ""
    if begun is not None:
        return recipe.with_prompt(recipe.prompt.settled_as(begun.prompt)), ""
    return settle_prompt(recipe, device, given)


def settled_for_asking(recipe: Recipe, model: str, device: torch.device) -> PromptSettings:
    """The recipe's settings for asking a model that was not trained by it."""
    if not recipe.prompt.is_open:
        return recipe.prompt
    student = recipe.student.model_copy(update={"path": model})
    return settle_prompt(recipe.model_copy(update={"student": student, "teacher": None}), device)[0].prompt


def settle_prompt(recipe: Recipe, device: torch.device, given: Given = NOTHING_GIVEN) -> tuple[Recipe, str]:
    """The recipe with its prompt settled by its training data, its models and the memory of `device`, and what is to be
    said of a schema that does not fit.

    Raises:
        DataError, ModelError: what the recipe names is missing or does not fit.
    """
    prompt, own = recipe.prompt, is_own(given.train_set.name if given.train_set else recipe.data.train)
    benchmark = load_data(recipe, given)[0] if own or prompt.schema_filter == "fixed" else None
    if not isinstance(benchmark, SqlBenchmark):
        return recipe.with_prompt(prompt.as_published()), ""
    if not own:
        prompt = prompt.as_published()
    if prompt.quoting == "auto":
        prompt = prompt.model_copy(update={"quoting": "sqlite"})
    if prompt.schema_filter == "auto" and recipe.train.share_prefix != "off":
        prompt = prompt.model_copy(update={"schema_filter": "fixed"})
    said = ""
    if prompt.schema_filter in ("fixed", "never"):
        text = PromptTokens(given.tokenizer or load_tokenizer(recipe.student.path))
        if prompt.max_prompt_tokens == "auto":
            prompt, said = _with_budget(recipe.with_prompt(prompt), benchmark, text, device, given)
        if prompt.schema_filter == "fixed" and not prompt.shown_first:
            prompt = _with_what_training_uses(prompt, benchmark, text)
    return recipe.with_prompt(prompt.as_published()), said


def _with_budget(
    recipe: Recipe, benchmark: SqlBenchmark, text: PromptTokens, device: torch.device, given: Given
) -> tuple[PromptSettings, str]:
    """With a budget for the largest schema and the longest question, as far as the limits allow."""
    prompt = recipe.prompt
    options = prompt_options(prompt)
    sizes = {
        db_id: text.count(build_prefix(database, options)) for db_id, database in benchmark.databases.items()
    }
    largest = max(sizes, key=sizes.__getitem__)
    longest = max(
        text.count(suffix_of(question_text(example), benchmark.databases[example.db_id].schema, {}, options))
        for example in benchmark.examples
    )
    limit, reason = prompt_limit(recipe, device, given)
    question = min(prompt.question_tokens + longest, limit // 2)
    wanted = text.special + round(sizes[largest] * (1 + _HEADROOM)) + question
    tokens = max(min(max(wanted, PUBLISHED_PROMPT_TOKENS), limit), 16)
    room = tokens - question - text.special
    said = ""
    if room < sizes[largest]:
        said = (
            f"The schema of {largest} takes {sizes[largest]:,} tokens, and there is room for {room:,} ({reason}): all "
            "its questions see the same cut, and what that leaves out cannot be asked about. "
            'prompt.schema_filter = "when_needed" makes a cut for each question; prompt.max_prompt_tokens sets another '
            "budget."
        )
    return prompt.model_copy(update={"max_prompt_tokens": tokens, "question_tokens": question}), said


def _with_what_training_uses(
    prompt: PromptSettings, benchmark: SqlBenchmark, text: PromptTokens
) -> PromptSettings:
    """`shown_first` for the databases whose schema does not fit: the columns of their golds, the most used first."""
    prefixes = shared_prefixes(benchmark, text, prompt)
    cut = {db_id for db_id, prefix in prefixes.items() if prefix.rule != "whole"}
    uses: dict[str, Counter[tuple[str, str]]] = {db_id: Counter() for db_id in sorted(cut)}
    for example in benchmark.examples:
        if example.db_id in cut:
            schema = benchmark.databases[example.db_id].schema
            uses[example.db_id].update(sorted(gold_columns(schema, example.gold_sql)))
    first = {db_id: sorted(counts, key=lambda name: (-counts[name], name)) for db_id, counts in uses.items()}
    return prompt.model_copy(update={"shown_first": first})


def prompt_limit(recipe: Recipe, device: torch.device, given: Given = NOTHING_GIVEN) -> tuple[int, str]:
    """The largest number of tokens a prompt may have, and the reason for this limit."""
    student = given.config("student", recipe.student.path)
    configs = [(recipe.student.path, student)]
    if recipe.loads_teacher and recipe.teacher is not None:
        configs.append((recipe.teacher.path, given.config("teacher", recipe.teacher.path)))
    beside = (
        source_class(recipe).longest_tokens(recipe) - recipe.prompt.budget_tokens
    )  # what is read after the prompt
    limits: list[tuple[int, str]] = []
    for path, config in configs:
        positions = getattr(config, "max_position_embeddings", None)
        if positions:
            limits.append((positions - beside, f"the {positions:,} positions of {path}"))
        window = attention_window(config)
        if window:
            limits.append((window - beside, f"the {window:,} tokens that {path} attends to"))
    memory = device_memory_bytes(device)
    tokens = int(MEMORY_SHARE * memory / bytes_per_token(student, recipe.train.precision))
    said = f"a quarter of the memory ({MEMORY_SHARE * memory / 2**30:.1f} GiB)"
    limits.append((tokens, said))
    return min(limits)


def bytes_per_token(config: Any, precision: str) -> int:
    """What the backward pass keeps of a token, about: ten vectors of the hidden size and four of the feed-forward size
    in each layer."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None) or 4 * hidden
    return int(layers * (10 * hidden + 4 * inner) * (2 if precision == "bfloat16" else 4))


def device_memory_bytes(device: torch.device) -> int:
    """The memory of a GPU, or of the machine as far as its control group allows, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    whole = int(psutil.virtual_memory().total)
    try:
        return min(whole, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # none, or "max"
        return whole
