"""A run's environment (versions, machine, code, data) for environment.json, and checking that data is unchanged."""

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from distilsql.data.benchmark import Benchmark, data_checksum
from distilsql.databases.url import without_passwords
from distilsql.errors import RunError
from distilsql.files import write_json
from distilsql.runs.folder import RunFolder
from distilsql.runs.records import DataChecksum, Environment, read_record
from distilsql.threads import THREAD_VARIABLES

_PACKAGES = ("distilsql", "torch", "transformers", "accelerate", "peft", "tokenizers", "sqlparse", "sqlglot")


def environment(
    benchmarks: list[Benchmark], processes: int, in_memory: Mapping[str, Mapping[str, str]]
) -> Environment:
    """`in_memory` describes what was passed in memory (see `Given.described`)."""
    return Environment(
        python=platform.python_version(),
        packages={name: _version(name) for name in _PACKAGES},
        platform=platform.platform(),
        processor=_processor(),
        cores=psutil.cpu_count(logical=False),
        memory_bytes=psutil.virtual_memory().total,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        torch_threads=torch.get_num_threads(),
        threads_set_by={name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        processes=processes,
        git_commit=_git_commit(),
        command=without_passwords(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        data={benchmark.name: DataChecksum(**data_checksum(benchmark)) for benchmark in benchmarks},
        **({"in_memory": in_memory} if in_memory else {}),
    )


def record_environment(
    run: RunFolder, benchmarks: list[Benchmark], processes: int, in_memory: Mapping[str, Mapping[str, str]]
) -> None:
    """Write environment.json. Raises RunError as `refuse_other_data` does, before it is written."""
    described = environment(benchmarks, processes, in_memory)
    refuse_other_data(run, described)
    write_json(run.environment, described.to_json())


def refuse_other_data(run: RunFolder, now: Environment) -> None:
    """Raises RunError if the run was begun, and has learnt something, from other examples than those of the
    `environment` of `now`."""
    if not run.checkpoint.parent.exists() or not run.environment.exists():
        return
    before = read_record(Environment, run.environment).data
    for name, data in now.data.items():
        if name in before and before[name] != data:
            raise RunError(
                f"{run.path} was begun on different data: {name} had {before[name].examples} examples and now has "
                f"{data.examples}, or their texts have changed. Restore it to resume; --overwrite starts over."
            )


def peak_memory_bytes() -> int:
    """Peak memory of this process in bytes: on the GPU if there is one, otherwise resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(kilobytes if sys.platform == "darwin" else kilobytes * 1024)


def reset_peak_memory() -> None:
    """Reset the measurement of the GPU's peak; that of a process cannot be reset."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout this package runs from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
