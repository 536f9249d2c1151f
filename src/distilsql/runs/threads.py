"""On a CPU, how many threads torch computes with, and how they wait for one another. Imports no torch.

The threads of an operation meet at its end. As they come, those of libgomp, which torch's wheels carry, then spin for
three milliseconds before they sleep: where another process wants the core, a model of small operations stands still.
Threads that sleep at once cost an idle machine little, and a model too small for several threads gets one.

What users set themselves wins: OMP_NUM_THREADS, and OMP_WAIT_POLICY or GOMP_SPINCOUNT. They are the settings, rather
than recipe keys, because a recipe is to give its run on any machine.
"""

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

log = logging.getLogger(__name__)

# Several threads gain nothing on a model of fewer parameters (`bench/processor.py`, docs/performance.md).
SMALL_MODEL_PARAMETERS = 10_000_000

WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
COUNT_VARIABLE = "OMP_NUM_THREADS"
THREAD_VARIABLES = (COUNT_VARIABLE, *WAIT_VARIABLES)


def wait_passively(environment: MutableMapping[str, str] | None = None) -> bool:
    """Let threads that wait sleep rather than spin. OpenMP reads this once: call it before torch is imported.

    Returns whether it was set: not where the user has set how threads wait, nor where torch is loaded already.
    """
    environment = os.environ if environment is None else environment
    if "torch" in sys.modules or any(name in environment for name in WAIT_VARIABLES):
        return False
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    return True


def threads_for(parameters: int, cores: int) -> int:
    """How many of `cores` threads a model of so many parameters is worth."""
    return 1 if parameters < SMALL_MODEL_PARAMETERS else cores


def fit_threads(*models: Any, environment: Mapping[str, str] = os.environ) -> int:
    """Compute with as many threads as the largest of the `models` is worth, on a CPU; returns their number.

    It follows from size and cores alone, not from what the machine is doing: threads decide how sums are rounded, and
    a resumed run is to be the same to the bit. It is said where the number changes.
    """
    import joblib
    import torch

    before = torch.get_num_threads()
    if environment.get(COUNT_VARIABLE) or any(next(m.parameters()).device.type != "cpu" for m in models):
        return before
    parameters = max(sum(p.numel() for p in model.parameters()) for model in models)
    cores = joblib.cpu_count(only_physical_cores=True)  # those that affinity and a container leave us
    threads = threads_for(parameters, cores)
    if threads != before:
        torch.set_num_threads(threads)
        log.info(
            f"Computes on {threads} of {cores} cores ({parameters / 1e6:.1f} M parameters); "
            f"{COUNT_VARIABLE} sets another number."
        )
    return threads
