"""Seconds of training until TRL SFT's final accuracy is reached, on the laboratory's benchmark.

    python bench/time_to_accuracy.py --out runs/time-to-accuracy --seeds 0,1,2

The laboratory (src/distilsql/experiments/paper/lab): the embedded teacher, fine-tuned on the students' own 1,200 noisy
questions (`demo:lab-noisy`), and students of four of its six layers, all from one start. Teacher and start are trained
first. Then every arm trains its own copy of the start for the same number of steps of sixteen questions, with the same
learning rates (warm-up, then a cosine to 0), and is asked `--questions` of `demo:lab-valid` every `--every` steps.
TRL's trainers run whole, with their own samplers and checkpoints; ours run as `distilsql train` does. All have our
allocator's and threads' settings. Seconds are of training alone: evaluations and checkpoints do not count.

An accuracy here is the mean of three evaluations in a row, since one has a standard error of about two points. TRL
SFT's final one is that of its last three; an arm has reached it at the last of the first three whose mean is no lower.

Killed, it goes on where it was: TRL from its last checkpoint, ours as any run. Results are added to
bench/results/time_to_accuracy.json, finished or not, and shown by bench/performance.py. Needs `pip install '.[bench]'`.
"""

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results") / "time_to_accuracy.json"
LAB = Path(__file__).parents[1] / "src" / "distilsql" / "experiments" / "paper" / "lab"
TRL_ARMS = ["trl-sft", "trl-distillation"]
ARMS = [*TRL_ARMS, "sft", "rkd", "kid", "gkd-rkl"]
TRAINING_QUESTIONS, STEP_QUESTIONS = 1200, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and checkpoints")
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--steps", type=int, default=1350)
    parser.add_argument(
        "--every", type=int, default=50, help="steps between evaluations; must divide --steps"
    )
    parser.add_argument("--questions", type=int, default=400, help="of demo:lab-valid, at each evaluation")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another file, for a try")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps % arguments.every:
        parser.error(f"--every {arguments.every} does not divide --steps {arguments.steps}")
    if arguments.worker:
        _work(arguments, **json.loads(arguments.worker))
        return
    _process(arguments, {"arm": "start", "seed": 0})
    for seed in map(int, arguments.seeds.split(",")):
        for arm in arguments.arms.split(","):
            start = time.perf_counter()
            _process(arguments, {"arm": arm, "seed": seed})
            curve = _curve(arguments.out / f"{arm}_seed{seed}", arm)
            _keep(arguments, arm, seed, curve)
            print(f"{arm}, seed {seed}: {curve[-1]}; {time.perf_counter() - start:.0f} s in all", flush=True)


def _process(arguments: argparse.Namespace, task: dict[str, Any]) -> None:
    """Run a task in a process of its own, so that none leaves another its memory or its threads."""
    command = [sys.executable, *sys.argv, "--worker", json.dumps(task)]
    code = subprocess.run(command).returncode
    if code:
        sys.exit(f"{task} ended with {code}; the same command goes on from what is kept in {arguments.out}")


def _keep(arguments: argparse.Namespace, arm: str, seed: int, curve: list[dict[str, float]]) -> None:
    known = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    asked = {"steps": arguments.steps, "every": arguments.every, "questions": arguments.questions}
    if known.setdefault("asked", asked) != asked:
        sys.exit(
            f"{arguments.results} holds results of {known['asked']}, not {asked}: name another file or folder"
        )
    known.setdefault("curves", {}).setdefault(arm, {})[str(seed)] = curve
    arguments.results.write_text(json.dumps(known, indent=1) + "\n")


# ---- inside a process of its own -----------------------------------------------------------------------------


def _work(arguments: argparse.Namespace, *, arm: str, seed: int) -> None:
    from distilsql.allocator import keep_freed_memory
    from distilsql.threads import wait_briefly

    wait_briefly()  # before torch is loaded
    keep_freed_memory()
    if arm == "start":
        _start(arguments.out)
    elif arm in TRL_ARMS:
        _train_trl(arguments, arm, seed)
    else:
        _train_ours(arguments, arm, seed)


def _recipe(name: str, *overrides: str) -> Any:
    from distilsql.runs.recipe import load_recipe

    return load_recipe(LAB / f"{name}.toml", [f"data.train_limit={TRAINING_QUESTIONS}", *overrides])


def _start(out: Path) -> None:
    """The fine-tuned teacher, and the student that all arms start from."""
    from distilsql.training.train import train

    train(_recipe("teacher"), out / "teacher")
    train(_recipe("start", f'student.path="{out / "teacher" / "model"}"'), out / "start")


def _student_recipe(arguments: argparse.Namespace, method: str, seed: int) -> Any:
    return _recipe(
        "student",
        f"method={method}",
        f"seed={seed}",
        f'student.path="{arguments.out / "start" / "model"}"',
        f'teacher.path="{arguments.out / "teacher" / "model"}"',
        "data.valid=demo:lab-valid",
        f"data.valid_limit={arguments.questions}",
        f"train.steps={arguments.steps}",
        f"train.evaluate_every_steps={arguments.every}",
        f"train.save_every_steps={arguments.every}",
        "train.log_every_steps=1",
        "train.calibration_windows=0",
    )


def _train_ours(arguments: argparse.Namespace, method: str, seed: int) -> None:
    from distilsql.training.train import train

    train(_student_recipe(arguments, method, seed), arguments.out / f"{method}_seed{seed}")


def _train_trl(arguments: argparse.Namespace, arm: str, seed: int) -> None:
    """TRL's own loop over all steps, the clock stopped while it is asked questions or saves."""
    import torch

    from distilsql.inference.loading import load_engines
    from distilsql.inference.prepare import load_data, prepare
    from distilsql.threads import fit_threads
    from peers import trl_distillation, trl_sft
    from peers.contender import Models, Options, Row
    from peers.trl_step import arguments_of

    # The recipe of ours that learns from the same; its engines are loaded for what this arm needs of them.
    recipe = _student_recipe(arguments, "sft" if arm == "trl-sft" else "gkd-rkl", seed)
    engines = load_engines(recipe, torch.device("cpu"))
    benchmark, valid = load_data(recipe)
    prepared = prepare(benchmark, engines.tokenizer, recipe.prompt, training=True)
    rows = [
        Row((*prepared.prefixes[each.prefix_key], *each.question), tuple(each.gold))
        for each in prepared.examples
    ]
    student = _own_copy(engines.student)
    teacher = None if engines.teacher is None else _own_copy(engines.teacher)
    fit_threads(student)
    out = arguments.out / f"{arm}_seed{seed}"
    options = Options(
        micro_batch=STEP_QUESTIONS,
        max_new_tokens=recipe.prompt.max_completion_tokens,
        learning_rate=recipe.train.learning_rate,
    )
    models = Models(student, teacher, engines.tokenizer)
    settings = arguments_of(models, options) | {
        "output_dir": str(out),
        "max_steps": arguments.steps,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(recipe.train.warmup_share * arguments.steps),
        "save_strategy": "steps",
        "save_steps": arguments.every,
        "save_total_limit": 2,
        "shuffle_dataset": True,
        "seed": seed,
        "data_seed": seed,
    }
    if arm == "trl-sft":
        trainer = trl_sft.trainer_of(models, settings, rows)
    else:
        trainer = trl_distillation.trainer_of(models, options, settings, rows)
    checkpoints = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    # The last one may have been cut short by what ended the process.
    whole = [path for path in checkpoints if (path / "trainer_state.json").exists()]
    done = int(whole[-1].name.rpartition("-")[2]) if whole else 0
    if done >= arguments.steps:
        return
    _time_and_ask(trainer, out, done, recipe, engines, valid, arguments.every)
    trainer.train(resume_from_checkpoint=str(whole[-1]) if whole else None)


def _own_copy(tree_model: Any) -> Any:
    """The causal LM of `transformers`, attending as `transformers` does."""
    model = copy.deepcopy(tree_model.causal_lm)
    model.set_attn_implementation("sdpa")
    return model


def _time_and_ask(
    trainer: Any, out: Path, done: int, recipe: Any, engines: Any, valid: Any, every: int
) -> None:
    """Give the trainer a clock, and ask its student every so many steps: curve.json, a line an evaluation."""
    from transformers import PrinterCallback, TrainerCallback

    from distilsql.metrics.golds import GoldResults
    from distilsql.training.validation import score_during_training
    from peers.contender import Stopwatch

    golds, watch = GoldResults(), Stopwatch(engines.student.device)
    curve_file = out / "curve.json"
    known = json.loads(curve_file.read_text()) if curve_file.exists() else []
    curve = [point for point in known if point["step"] <= done]  # what came after the checkpoint comes again

    class Asks(TrainerCallback):  # type: ignore[misc]
        seconds = curve[-1]["seconds"] if curve else 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            watch.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds += watch.seconds()
            if state.global_step % every == 0:
                engines.student.causal_lm.load_state_dict(trainer.model.state_dict())
                accuracy = score_during_training(recipe, engines, valid, golds)
                curve.append({"step": state.global_step, "seconds": self.seconds, "accuracy": accuracy})
                out.mkdir(parents=True, exist_ok=True)
                curve_file.write_text(json.dumps(curve) + "\n")
                print(f"{out.name}: {curve[-1]}", flush=True)

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Asks())


def _curve(run: Path, arm: str) -> list[dict[str, float]]:
    """Step, seconds of training and accuracy at each evaluation of a finished arm."""
    if arm in TRL_ARMS:
        curve: list[dict[str, float]] = json.loads((run / "curve.json").read_text())
        return curve
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    seconds = {line["step"]: line["train_seconds"] for line in lines if "train_seconds" in line}
    accuracies = {line["step"]: line["valid_accuracy"] for line in lines if "valid_accuracy" in line}
    return [
        {"step": step, "seconds": seconds[step], "accuracy": accuracy}
        for step, accuracy in accuracies.items()
    ]


if __name__ == "__main__":
    main()
