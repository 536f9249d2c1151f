"""What every program here records: the machine, and rows in a file."""

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers


def the_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were taken on, and the two rates that bound them: of matrix products and of copies."""
    described: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.type == "cuda":
        described["bfloat16_tflops"] = matrix_tflops(device)
    return described


def matrix_tflops(device: torch.device, size: int = 8192) -> float:
    """Of a product of two random bfloat16 matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = min(event_seconds(lambda: left @ right) for _ in range(10))
    return 2 * size**3 / seconds / 1e12


def event_seconds(work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


class Rows:
    """Rows of a result, in a JSON file that is whole after every one: a run that is cut short leaves what it has."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._document: dict[str, Any] = {"machine": machine(device), "rows": []}

    def add(self, row: dict[str, Any]) -> None:
        self._document["rows"].append(row)
        self._path.write_text(json.dumps(self._document, indent=1) + "\n")
        print(json.dumps(row), flush=True)
