"""Trainings in several real processes: what starts them, and the program that each of them runs.

A launch costs seconds, most of them for imports: so one launch goes through many trainings in turn, and its processes
are forked from one that has imported what they need.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from distilsql.errors import DistilSQLError
from distilsql.models.sharding import whole_tensor
from distilsql.runs.recipe import Recipe, load_recipe
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.train import train
from forked import refuse_threads


@dataclass(frozen=True)
class Job:
    """A training in the run folder `out`. After `stop_after` steps of its own it stops as if it had been killed, in all
    processes at once; after `full_after` steps the second process can write no file of more than a kilobyte."""

    recipe: str
    out: str
    stop_after: int | None = None
    full_after: int | None = None


class Stopped(Exception):
    """Stands for a kill."""


def job(recipe: Recipe, out: Path, **options: int) -> Job:
    out.parent.mkdir(parents=True, exist_ok=True)
    text = out.with_name(f"{out.name}.toml")
    text.write_text(recipe.to_toml())
    return Job(str(text), str(out), **options)


def run_jobs(jobs: Sequence[Job], folder: Path, processes: int, *, torchrun: bool = False) -> None:
    """Go through the jobs in so many processes, on request under torchrun."""
    (folder / "jobs.json").write_text(json.dumps([asdict(one) for one in jobs]))
    command = [sys.executable]
    if torchrun:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    result = subprocess.run(
        [*command, __file__, str(folder / "jobs.json"), str(processes)],
        capture_output=True,
        text=True,
        env=environment(XDG_CACHE_HOME=str(folder / "cache")),
    )
    assert result.returncode == 0, result.stderr[-8000:]


def environment(**more: str) -> dict[str, str]:
    """That of a process that computes on a CPU and finds the modules of the tests."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return (
        os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join(filter(None, paths))} | more
    )


def steps_of(out: Path) -> Path:
    """Where `recording_steps` keeps what a run's optimizer did: a file for each step."""
    return out.with_name(f"{out.name}.steps")


@contextmanager
def recording_steps(
    out: Path, stop_after: int | None = None, full_after: int | None = None
) -> Iterator[None]:
    """In here, each step's (clipped) gradients and the masters after it, and before the first step, are kept, whole, by
    the first process: gradient.NAME, after.NAME and before.NAME."""
    own_step, rank, done = MasterAdamW.step, int(os.environ.get("RANK", "0")), 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    steps_of(out).mkdir(parents=True, exist_ok=True)

    def step(self: MasterAdamW, learning_rate: float) -> None:
        nonlocal done
        done += 1
        kept = whole_tensors("gradient", self.names, self.gradients())
        if done == 1:
            kept |= whole_tensors("before", self.names, self.masters)
        own_step(self, learning_rate)
        kept |= whole_tensors("after", self.names, self.masters)
        if rank == 0:
            save_file(kept, steps_of(out) / f"{done}.safetensors")
        if done == stop_after:
            raise Stopped
        if done == full_after and rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))

    MasterAdamW.step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        MasterAdamW.step = own_step  # type: ignore[method-assign]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def whole_tensors(kind: str, names: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    pairs = zip(names, tensors, strict=True)
    return {f"{kind}.{name}": whole_tensor(tensor.detach()).clone() for name, tensor in pairs}


def do(one: Job) -> None:
    """Train; an error that is meant for people is kept as OUT.error.RANK."""
    try:
        with recording_steps(Path(one.out), one.stop_after, one.full_after):
            train(load_recipe(Path(one.recipe)), one.out)
    except Stopped:
        pass
    except DistilSQLError as error:
        Path(f"{one.out}.error.{os.environ.get('RANK', '0')}").write_text(str(error))


def fork_all(processes: int) -> None:
    """Returns in each of the processes alone; this one waits for them and ends, as the first that fails."""
    refuse_threads()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    started = set()
    for rank in range(processes):
        if (pid := os.fork()) == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            return
        started.add(pid)
    while started:
        pid, status = os.wait()
        started.remove(pid)
        if status:
            for other in started:
                os.kill(other, signal.SIGKILL)
            sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    if "RANK" not in os.environ:
        fork_all(int(sys.argv[2]))
    for values in json.loads(Path(sys.argv[1]).read_text()):
        do(Job(**values))
