"""How the cost of a training step grows with prompt, questions per database and teacher, beside operation counts.

    python bench/cost_growth.py

Randomly initialised Llamas and random token ids, so nothing is downloaded: what a step costs does not depend on what
the weights know. One step is the loss and the gradients of one tree, run by the trainer's own `WindowTrainer`; the
optimizer's update is left out, for it is the same for every method and every length. Sizes are visited in turn and
the whole round repeated, so that every size meets the machine in every state; medians are kept. The first round is
untimed, and fills the teacher's prefix cache.

Operation counts are 2 per weight and token forward and 4 backward, heads at completion positions only, plus attention
(`operations`). Each contender's count is scaled to its own measured time at ONE size, the reference: there measured
and predicted agree by construction, everywhere else the comparison is free to fail.

Writes bench/results/cost_growth.json and docs/images/cost_growth.png; with --quick (tiny sizes, for seconds) both go
to runs/cost_growth instead.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distilsql.threads import fit_threads, wait_briefly

wait_briefly()  # before torch is loaded

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from transformers import LlamaConfig, LlamaForCausalLM

from distilsql.distill.masking import masked_count
from distilsql.inference.loading import Engines
from distilsql.models.load import DTYPES, Precision
from distilsql.models.precision import choose_on_cpu
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tree_model import TreeModel
from distilsql.report.theme import LIGHT, dress, method_style, new_figure
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.window import WindowTrainer
from distilsql.training.window_tree import WindowTree
from model_shapes import Shape, causal_pairs, forward_operations
from random_step import TOKENIZER, loss_and_gradients, random_tree, recipe_of

ROOT = Path(__file__).parents[1]
CONTENDERS = ("sft", "sft-padded", "rkd", "kid")


def llama(layers: int, hidden: int, vocabulary: int = 8000) -> Shape:
    """Feed-forward layers are four times as wide as `hidden`, as in `models/tiny.py`."""
    heads = hidden // 64
    return Shape(layers, hidden, 4 * hidden, heads, heads, vocabulary, tied=True)


def build(shape: Shape, seed: int, precision: Precision) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
    )
    model: Any = LlamaForCausalLM(config)
    return model.to(DTYPES[precision])


@dataclass(frozen=True)
class Size:
    """One size of step: tokens of the database's prompt, questions under it, and which teacher."""

    prompt_tokens: int
    questions: int
    teacher: int


@dataclass(frozen=True)
class Plan:
    """`teachers[0]` has the student's own shape. Panels differ from `reference` in one number each."""

    student: Shape
    teachers: tuple[Shape, ...]
    reference: Size
    prompts: tuple[int, ...]
    questions: tuple[int, ...]
    question_tokens: int = 16
    completion_tokens: int = 39
    repeats: int = 2

    def panels(self) -> dict[str, list[Size]]:
        return {
            "prompt_tokens": [replace(self.reference, prompt_tokens=count) for count in self.prompts],
            "questions": [replace(self.reference, questions=count) for count in self.questions],
            "teacher": [replace(self.reference, teacher=number) for number in range(len(self.teachers))],
        }

    def tasks(self) -> list[tuple[Size, str]]:
        """Every size of every panel once; SFT, which has no teacher, at the first teacher only."""
        sizes = dict.fromkeys(size for panel in self.panels().values() for size in panel)
        return [
            (size, contender)
            for size in sizes
            for contender in CONTENDERS
            if size.teacher == self.reference.teacher or contender in ("rkd", "kid")
        ]


FULL = Plan(
    student=llama(10, 320),
    teachers=(llama(10, 320), llama(13, 512), llama(16, 640), llama(18, 768)),
    reference=Size(512, 16, 0),
    prompts=(128, 256, 512, 1024),
    questions=(1, 2, 4, 8, 16, 32),
)
QUICK = Plan(
    student=llama(2, 64, 500),
    teachers=(llama(2, 64, 500), llama(3, 128, 500)),
    reference=Size(64, 4, 0),
    prompts=(32, 64, 128),
    questions=(1, 4, 8),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    results, image = ROOT / "bench/results/cost_growth.json", ROOT / "docs/images/cost_growth.png"
    if arguments.quick:
        results, image = (ROOT / "runs/cost_growth" / path.name for path in (results, image))
    started = time.perf_counter()
    choice = choose_on_cpu((64, plan.student.hidden, 4 * plan.student.hidden))
    print(choice)
    document = describe(plan, measure(plan, choice.precision)) | {"precision": choice.precision}
    document["wall_s"] = round(time.perf_counter() - started, 1)
    for path in (results, image):
        path.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(document, indent=1) + "\n")
    draw(plan, document, image)
    for row in document["rows"]:
        print(
            f"{row['contender']:11} prompt {row['prompt_tokens']:5}  questions {row['questions']:3}  "
            f"teacher {row['teacher']}  {row['seconds_per_example']:8.4f} s  "
            f"predicted {row['predicted_seconds_per_example']:8.4f} s"
        )
    print(f"{results} and {image}, {document['wall_s']:.0f} s")


# ---- measured ------------------------------------------------------------------------------------------------


def measure(plan: Plan, precision: Precision) -> dict[tuple[Size, str], list[float]]:
    """Seconds of every timed step, by size and contender."""
    student = build(plan.student, 0, precision)
    teachers = [build(shape, 1, precision) for shape in plan.teachers]
    fit_threads(student, *teachers)
    engines = _engines(plan, student, [teacher.requires_grad_(False) for teacher in teachers])
    recipes = {method: recipe_of(method) for method in ("sft", "rkd", "kid")}
    seconds: dict[tuple[Size, str], list[float]] = {task: [] for task in plan.tasks()}
    for round_number in range(plan.repeats + 1):
        for (size, contender), times in seconds.items():
            recipe = recipes[contender.removesuffix("-padded")]
            student.zero_grad()
            elapsed_s = _step(recipe, engines[contender, size.teacher], _tree(plan, size))
            if round_number:
                times.append(elapsed_s)
    return seconds


def _engines(plan: Plan, student: Any, teachers: Sequence[Any]) -> dict[tuple[str, int], Engines]:
    """Engines by contender and teacher: one student, one prefix cache per teacher."""
    tree, padded = TreeModel(student), TreeModel(student, layout="padded")
    vocabulary = plan.student.vocabulary
    engines = {
        ("sft", 0): Engines(tree, TOKENIZER, vocabulary),
        ("sft-padded", 0): Engines(padded, TOKENIZER, vocabulary),
    }
    for number, model in enumerate(teachers):
        teacher = TreeModel(model)
        both = Engines(tree, TOKENIZER, vocabulary, teacher, PrefixCache(teacher, budget_bytes=2**31))
        engines |= {("rkd", number): both, ("kid", number): both}
    return engines


def _tree(plan: Plan, size: Size) -> WindowTree:
    return random_tree(
        plan.student.vocabulary,
        prompt_tokens=size.prompt_tokens,
        questions=size.questions,
        question_tokens=plan.question_tokens,
        completion_tokens=plan.completion_tokens,
    )


def _step(recipe: Recipe, engines: Engines, item: WindowTree) -> float:
    """Seconds of the loss and the gradients of one tree."""
    start = time.perf_counter()
    loss_and_gradients(WindowTrainer(recipe, engines, Ledger()), [item])
    return time.perf_counter() - start


# ---- predicted -----------------------------------------------------------------------------------------------


def operations(plan: Plan, size: Size, contender: str) -> float:
    """Floating-point operations of one step.

    In the tree the prompt runs once and each question's tokens see it and their own; padded, the prompt runs with
    every question. The teacher's prompt is cached, so only what follows it runs. KID adds one forward pass of the
    completions, read at the masked positions, to RKD. The last completion token is no input.
    """
    student, teacher = plan.student, plan.teachers[size.teacher]
    count, own = size.questions, plan.question_tokens + plan.completion_tokens - 1
    read = count * plan.completion_tokens
    if contender == "sft-padded":
        length = size.prompt_tokens + own
        return 3 * forward_operations(student, count * length, count * causal_pairs(0, length), read)
    pairs = causal_pairs(0, size.prompt_tokens) + count * causal_pairs(size.prompt_tokens, own)
    total = 3 * forward_operations(student, size.prompt_tokens + count * own, pairs, read)
    if contender in ("rkd", "kid"):
        total += forward_operations(teacher, count * own, count * causal_pairs(size.prompt_tokens, own), read)
    if contender == "kid":
        again, past = plan.completion_tokens - 1, size.prompt_tokens + plan.question_tokens
        masked = count * masked_count(plan.completion_tokens, recipe_of("kid").distill.mask_share)
        total += forward_operations(student, count * again, count * causal_pairs(past, again), masked)
    return total


def describe(plan: Plan, seconds: dict[tuple[Size, str], list[float]]) -> dict[str, Any]:
    """Measured medians and predictions per example, with how far apart they are."""
    medians = {task: statistics.median(times) for task, times in seconds.items()}
    rate = {
        contender: operations(plan, plan.reference, contender) / medians[plan.reference, contender]
        for contender in CONTENDERS
    }
    rows = []
    for (size, contender), step_s in medians.items():
        predicted_s = operations(plan, size, contender) / rate[contender]
        rows.append(
            {
                "contender": contender,
                **vars(size),
                "seconds_per_example": step_s / size.questions,
                "predicted_seconds_per_example": predicted_s / size.questions,
                "measured_over_predicted": round(step_s / predicted_s, 3),
                "steps_seconds": [round(value, 4) for value in seconds[size, contender]],
            }
        )
    weights = [shape.layer_weights + shape.head_weights for shape in (plan.student, *plan.teachers)]
    return {
        "command": "python bench/cost_growth.py",
        "threads": torch.get_num_threads(),
        "load_average_1min": os.getloadavg()[0],
        "student": vars(plan.student) | {"weights": weights[0]},
        "teachers": [
            vars(shape) | {"weights": own, "times_student": round(own / weights[0], 2)}
            for shape, own in zip(plan.teachers, weights[1:], strict=True)
        ],
        "question_tokens": plan.question_tokens,
        "completion_tokens": plan.completion_tokens,
        "repeats": plan.repeats,
        "reference": vars(plan.reference),
        "giga_operations_per_second_at_reference": {name: round(one / 1e9, 1) for name, one in rate.items()},
        "rows": rows,
    }


# ---- drawn ---------------------------------------------------------------------------------------------------

TITLES = {
    "prompt_tokens": "tokens of the database's prompt",
    "questions": "questions per database in a step",
    "teacher": "teacher's size, × the student's",
}
NAMES = {"sft": "SFT", "sft-padded": "SFT, padded layout", "rkd": "RKD", "kid": "KID"}


def draw(plan: Plan, document: dict[str, Any], path: Path) -> None:
    """One panel per growth: measured points, and what operation counts predict as dashed lines."""
    figure = new_figure(LIGHT, 11.0, 4.2)
    panels = figure.subplots(1, len(TITLES), sharey=True)
    for axes, (name, sizes) in zip(panels, plan.panels().items(), strict=True):
        dress(axes, LIGHT)
        _panel(axes, plan, document, name, sizes)
    panels[0].set_ylabel("seconds per example")
    points, names = panels[0].get_legend_handles_labels()
    (dashed,) = panels[0].plot([], [], "--", color=LIGHT.faint)
    legend = figure.legend(
        [*points, dashed],
        [*names, "predicted by operation counts, scaled at the ringed point"],
        loc="outside upper center",
        ncols=5,
        frameon=False,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_color(LIGHT.text)
    figure.savefig(path, dpi=150)


def _panel(axes: Axes, plan: Plan, document: dict[str, Any], name: str, sizes: Sequence[Size]) -> None:
    rows = {(Size(*(row[key] for key in TITLES)), row["contender"]): row for row in document["rows"]}
    ratios = [teacher["times_student"] for teacher in document["teachers"]]
    places = [ratios[size.teacher] if name == "teacher" else getattr(size, name) for size in sizes]
    for contender in CONTENDERS:
        color, marker, area = method_style(contender.removesuffix("-padded"), LIGHT)
        if contender == "sft-padded":
            color, marker = LIGHT.phases[0], "x"
        # SFT has no teacher: its count is the reference's, whichever teacher the panel shows.
        known = [rows.get((size, contender), rows[plan.reference, contender]) for size in sizes]
        axes.plot(
            places, [row["predicted_seconds_per_example"] for row in known], "--", color=color, linewidth=1.1
        )
        found = [
            (place, rows[size, contender]["seconds_per_example"])
            for place, size in zip(places, sizes, strict=True)
            if (size, contender) in rows
        ]
        axes.plot(
            *zip(*found, strict=True), marker, color=color, markersize=0.8 * area, label=NAMES[contender]
        )
        reference_s = rows[plan.reference, contender]["seconds_per_example"]
        axes.plot(
            places[sizes.index(plan.reference)],
            reference_s,
            "o",
            color=color,
            markersize=13,
            fillstyle="none",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:.0f}{'×' * (name == 'teacher')}"))
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.set_xlabel(TITLES[name])


if __name__ == "__main__":
    main()
