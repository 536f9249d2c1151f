"""Made-up run folders, as `train`, `predict` and `evaluate` leave them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """`make_run(name, method=…, seed=…, accuracy=…, x_sft=…, settings=…, exposure=(benchmark, percent), **summary)`
    writes a folder."""
    return run_maker(tmp_path)


@pytest.fixture(scope="module")
def make_shared_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """`make_run` for the tests of one module together."""
    return run_maker(tmp_path_factory.mktemp("shared"))


def run_maker(root: Path) -> MakeRun:
    def make(
        name: str,
        *,
        method: str = "sft",
        seed: int = 0,
        accuracy: dict[str, float] | float = 0.5,
        x_sft: float | None = None,
        settings: str = "",
        examples: int = 300,
        exposure: tuple[str, float] | None = None,
        length: int = 15,
        **summary: Any,
    ) -> Path:
        folder = root / "runs" / name
        (folder / "scores").mkdir(parents=True)
        recipe = f'method = "{method}"\nname = "{name}"\nseed = {seed}\n{settings}\n'
        (folder / "recipe.toml").write_text(recipe)
        values = {
            "method": method,
            "name": name,
            "seed": seed,
            "student_parameters": 1_234_567,
            "teacher": None if method == "sft" else "models/teacher",
            "steps": 200,
            "examples_seen": 6400,
            "train_seconds": 64.0 * (x_sft or 1.0),
            "samples_per_second": 100.0 / (x_sft or 1.0),
            "seconds_by_phase": phases(method, 64.0 * (x_sft or 1.0)),
            "sft_seconds_per_example": 0.01,
            "seconds_per_example": 0.01 * (x_sft or 1.0),
            "x_sft": x_sft,
            "teacher_share": None,
            "peak_memory_bytes": 900 * 2**20,
        }
        (folder / "summary.json").write_text(json.dumps(values | summary))
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log(method, values)))
        if exposure is not None:
            benchmark, error = exposure
            found = {
                "benchmark": benchmark,
                "excess_accumulated_error": error,
                "interval": [error - 20, error + 20],
                "options": {"length": length},
            }
            (folder / "exposure.json").write_text(json.dumps(found))
        by_benchmark = accuracy if isinstance(accuracy, dict) else {"demo:test": accuracy}
        for benchmark, share in by_benchmark.items():
            half = 1.96 * math.sqrt(share * (1 - share) / examples)
            score = {
                "benchmark": benchmark,
                "metric": "EX",
                "accuracy": share,
                "accuracy_interval_95": [max(0.0, share - half), min(1.0, share + half)],
                "total": examples,
                "verdicts": [],
            }
            (folder / "scores" / f"{benchmark.replace(':', '-')}.json").write_text(json.dumps(score))
        return folder

    return make


def phases(method: str, seconds: float) -> dict[str, float]:
    shares = {"data": 0.02, "student": 0.9, "optimizer": 0.08}
    if method != "sft":
        shares = {"data": 0.01, "generation": 0.12, "teacher": 0.3, "student": 0.52, "optimizer": 0.05}
    if method.startswith(("gkd", "switch")):
        shares = {"data": 0.01, "generation": 0.75, "teacher": 0.1, "student": 0.12, "optimizer": 0.02}
    return {phase: share * seconds for phase, share in shares.items()} | {
        "evaluation": 30.0,
        "checkpoint": 2.0,
    }


def log(method: str, summary: dict[str, Any]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(5, 201, 5):
        likelihood = 2.5 * math.exp(-step / 60) + 0.2 + 0.05 * math.sin(step)
        divergence = None if method == "sft" else 1.4 * math.exp(-step / 90) + 0.1 + 0.03 * math.cos(step)
        lines.append(
            {
                "step": step,
                "loss": likelihood + (divergence or 0.0),
                "divergence": divergence,
                "negative_log_likelihood": likelihood,
                "train_seconds": summary["train_seconds"] * step / 200,
            }
        )
        if step % 50 == 0:
            lines.append({"step": step, "valid_accuracy": 0.6 * (1 - math.exp(-step / 80))})
    return lines
