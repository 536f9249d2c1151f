"""How many threads torch uses on a CPU, and how they wait for each other. Does not import torch.

The threads of an operation wait for each other at its end. By default, those of libgomp, which torch's wheels bundle,
spin for three milliseconds before they sleep; if another process wants the core, a model of small operations comes to a
standstill. Threads that never spin make an idle machine pay for waking them. A model too small to gain from threads
gets one.

The environment variables OMP_NUM_THREADS, and OMP_WAIT_POLICY or GOMP_SPINCOUNT, take precedence. These are not recipe
keys, because a recipe should give the same run on any machine.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

# Models with fewer parameters gain nothing from several threads (`bench/processor.py`, docs/performance.md).
SMALL_MODEL_PARAMETERS = 10_000_000

# How long a thread spins before it sleeps. More rounds ruin a step beside a busy process, fewer cost an idle machine
# (`bench/processor.py`, docs/performance.md).
SPIN_ROUNDS = 2000

WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
COUNT_VARIABLE = "OMP_NUM_THREADS"
THREAD_VARIABLES = (COUNT_VARIABLE, *WAIT_VARIABLES)


def wait_briefly(environment: MutableMapping[str, str] | None = None) -> bool:
    """Make waiting threads spin for a moment only, then sleep. OpenMP reads the setting once: call this before torch is
    imported.

    Returns whether it was set. It is not if the user has set how threads wait, or if torch is already loaded.
    """
    environment = os.environ if environment is None else environment
    if "torch" in sys.modules or any(name in environment for name in WAIT_VARIABLES):
        return False
    environment["GOMP_SPINCOUNT"] = str(SPIN_ROUNDS)
    return True


def threads_for(parameters: int, cores: int) -> int:
    """How many threads, up to `cores`, to use for a model with this many parameters."""
    return 1 if parameters < SMALL_MODEL_PARAMETERS else cores


def fit_threads(*models: Any, environment: Mapping[str, str] = os.environ) -> int:
    """On a CPU, set the number of threads by the size of the largest of the `models`; returns the number.

    It depends only on size and cores, not on the machine's load: the number of threads affects rounding, and a resumed
    run must be bit-identical. A message says so if the number changes.
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
            f"Computing on {threads} of {cores} cores ({parameters / 1e6:.1f} M parameters); "
            f"set {COUNT_VARIABLE} to change this."
        )
    return threads


@contextmanager
def one_thread() -> Iterator[None]:
    """In here, torch computes on this thread alone. Changing the number takes less than a microsecond; waking a thread
    that sleeps takes longer than a small product."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
