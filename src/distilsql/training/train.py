"""Training: one loop for every method of the table, resumable to the bit.

The loop does not know which method it runs, nor who writes the completions. What it guarantees: the loss is
normalised over the whole optimizer window (all trees, all processes), the same seed gives the same run, and a run
that was killed at any point goes on from its last checkpoint to the same weights.
"""

import logging
import operator
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, broadcast_object_list, gather_object

from distilsql.data.benchmark import SqlBenchmark
from distilsql.errors import RecipeError, RunError, TrainingError
from distilsql.files import write_json
from distilsql.inference.given import Examples, Given, as_benchmark, refuse_others
from distilsql.inference.loading import Engines, load_engines
from distilsql.inference.prepare import Prepared, load_data, prepare
from distilsql.interrupt import StopRequest, say_kept, stopping_when
from distilsql.lock import hold
from distilsql.metrics.evaluate import run_golds
from distilsql.metrics.golds import GoldResults
from distilsql.models.load import save_model
from distilsql.models.precision import choose_precision
from distilsql.progress import progress, reporting_to
from distilsql.runs.folder import RunFolder, append_line, drop_lines_after, open_run, refuse_what_is_no_run
from distilsql.runs.recipe import Recipe, load_recipe
from distilsql.training.across_processes import sum_gradients, sum_loss, sum_values
from distilsql.training.calibration import Calibration
from distilsql.training.checkpoint import load_checkpoint, save_checkpoint
from distilsql.training.environment import environment, refuse_other_data, reset_peak_memory
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.log import step_line
from distilsql.training.model_card import write_model_card
from distilsql.training.optimizer import MasterAdamW, learning_rate_at
from distilsql.training.rollout import Rollout
from distilsql.training.sampling import Sampler, WindowStream
from distilsql.training.settle_prompt import settled_for_run
from distilsql.training.setup import choose_layouts
from distilsql.training.sources.source import Beforehand, source_class
from distilsql.training.summary import training_summary
from distilsql.training.validation import score_during_training
from distilsql.training.window import Denominators, WindowLoss, WindowTrainer
from distilsql.training.window_tree import as_window_trees

log = logging.getLogger(__name__)
_STEP_SAVED = "this step is finished and saved"
OnStep = Callable[[Mapping[str, Any]], None]


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    student: Any = None,
    tokenizer: Any = None,
    teacher: Any = None,
    train_set: Examples | None = None,
    valid_set: Examples | None = None,
    overwrite: bool = False,
    on_step: OnStep | None = None,
    same: Callable[[Recipe, Recipe], bool] = operator.eq,
) -> RunFolder:
    """Train by a recipe into the run folder `out`, resuming it if it holds the same recipe, as `same` has it.

    What the recipe leaves open (`auto`: precision, prompt) is decided here, once: the recipe in the folder says what
    was chosen.

    Models, the student's tokenizer and examples that are in memory take the place of what the recipe names (`memory`
    is a name for them; see `Given`); none of them is changed. Examples are a benchmark, or question/SQL pairs as
    mappings about the database of the recipe. The recipe in the folder names them by their checksums, so the run goes
    on with the same ones alone.

    `on_step` is called after every optimizer step, in the first process, with the step's line of log.jsonl (see
    `step_line`), whether or not it is one of those that are logged. What it raises ends the training, and the step
    counts as not made unless a checkpoint has it.

    Raises:
        RunInUse: another process is at work in the folder.
        RunError: the folder holds another run or cannot be written.
        DataError, ModelError: what the recipe names, or what is given, is missing or does not fit.
        TrainingError: the loss is not finite, or memory ran out; the last good checkpoint is kept.
        KeyboardInterrupt: after SIGINT or SIGTERM, once the current step is saved; after a second one, at once.
    """
    out = Path(out)
    _check_trackers(recipe.train.trackers)
    given = Given(
        student, tokenizer, teacher, as_benchmark(train_set, recipe), as_benchmark(valid_set, recipe)
    )
    recipe = given.named_in(recipe)
    there = None if overwrite else _begun_in(out)
    if there is not None:
        refuse_others(recipe, there, out)
    accelerator = Accelerator(log_with=recipe.train.trackers or None, project_dir=str(out))
    with ExitStack() as held:
        held.enter_context(_speaking(accelerator.is_main_process))
        recipe, why = _settled(recipe, there, accelerator, given)
        recipe, prompt_said = settled_for_run(recipe, None if overwrite else out, accelerator, given)
        with accelerator.main_process_first():
            if accelerator.is_main_process:
                refuse_what_is_no_run(out)
                if overwrite or not RunFolder(out).is_finished():
                    held.enter_context(hold(out))
            run = open_run(
                out, _text_of(recipe, out, same), overwrite=overwrite and accelerator.is_main_process
            )
        if run.is_finished():
            log.info(f"{out} is finished already; pass --overwrite to run it anew.")
        else:
            for sentence in filter(None, (why, prompt_said)):
                log.info(sentence)
            try:
                _Trainer(recipe, run, accelerator, on_step, given).loop()
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"{run.path} ran out of memory: {str(error).splitlines()[0]} Train with fewer questions at a time "
                    "(train.largest_tree, train.questions_per_tree, generation.max_batch_rows), shorter prompts "
                    "(prompt.max_prompt_tokens) or fewer logits at a time (train.loss_chunk_rows). Other settings are "
                    "another run: --overwrite starts it anew."
                ) from error
    return run


@contextmanager
def _speaking(is_speaking: bool) -> Iterator[None]:
    """Of the processes of a training, one speaks for all: the others log nothing and report no progress."""
    logger = logging.getLogger("distilsql")
    level = logger.level
    with ExitStack() as silent:
        if not is_speaking:
            logger.setLevel(logging.CRITICAL + 1)
            silent.callback(logger.setLevel, level)
            silent.enter_context(reporting_to(None))
        yield


def _check_trackers(names: Sequence[str]) -> None:
    """Raises RunError for a tracker that accelerate does not know, or that is not installed: it would track nothing."""
    known = {kind.value for kind in LoggerType}
    installed = {str(kind) for kind in get_available_trackers()} | {LoggerType.ALL.value}
    for name in names:
        if name not in known:
            raise RunError(
                f"train.trackers: there is no tracker {name!r}. Known: {', '.join(sorted(known))}."
            )
        if name not in installed:
            package = "'distilsql[tensorboard]'" if name == LoggerType.TENSORBOARD.value else name
            raise RunError(
                f"train.trackers: {name} is not installed, so nothing would be tracked: pip install {package}."
            )


def _text_of(recipe: Recipe, out: Path, same: Callable[[Recipe, Recipe], bool]) -> str:
    """The recipe's text, or that in the run folder if it says the same: an earlier version had fewer keys."""
    file = RunFolder(out).recipe
    there = _recipe_in(out)
    return file.read_text(encoding="utf-8") if there and same(there, recipe) else recipe.to_toml()


def _recipe_in(out: Path) -> Recipe | None:
    """The recipe in a run folder; None where there is none, or it is of another kind."""
    try:
        return load_recipe(RunFolder(out).recipe)
    except RecipeError:
        return None


def _begun_in(out: Path) -> Recipe | None:
    """The recipe of a run that has begun in `out`."""
    return _recipe_in(out) if RunFolder(out).is_begun() else None


def _settled(
    recipe: Recipe, begun: Recipe | None, accelerator: Accelerator, given: Given
) -> tuple[Recipe, str]:
    """The recipe with a precision in place of auto, the same in every process, and what is to be said of the choice.

    A run that has begun, by the recipe `begun`, goes on in its own precision; otherwise the machine of the first
    process decides.
    """
    if recipe.train.precision != "auto":
        return recipe, ""
    chosen: list[Any] = [recipe, ""]
    if accelerator.is_main_process:
        if begun is not None and begun.train.precision != "auto":
            chosen = [recipe.settled_as(begun), ""]
        else:
            choice = choose_precision(given.student_config or recipe.student.path, accelerator.device)
            chosen = [recipe.settled(choice.precision), str(choice)]
    settled, why = broadcast_object_list(chosen)
    return settled, why


class _Trainer:
    """The state of one training: what the loop needs, prepared once."""

    def __init__(
        self, recipe: Recipe, run: RunFolder, accelerator: Accelerator, on_step: OnStep | None, given: Given
    ) -> None:
        self.recipe, self.run, self.accelerator, self.on_step = recipe, run, accelerator, on_step
        self.ledger = Ledger(accelerator.device)
        self.benchmark, self.valid = load_data(recipe, given)
        self.golds = GoldResults()
        will_evaluate = recipe.train.evaluate_every_steps is not None and accelerator.is_main_process
        if will_evaluate and isinstance(self.valid, SqlBenchmark):
            # A gold that does not run is better said now than at the first evaluation.
            run_golds(self.valid, self.golds)
        for first in self.benchmark.skipped[:1]:
            log.warning(f"{len(self.benchmark.skipped)} examples left out: {first.reason}")
        with progress("loading models"):
            self.engines: Engines = load_engines(
                recipe,
                accelerator.device,
                longest_tokens=source_class(recipe).longest_tokens(recipe),
                given=given,
            )
        self.prepared: Prepared = prepare(
            self.benchmark, self.engines.tokenizer, recipe.prompt, training=True, filter_seed=recipe.seed
        )
        for sentence in self.prepared.lengths.sentences():
            log.info(sentence)
        self.windows = WindowStream(
            Sampler(
                [example.prefix_key for example in self.prepared.examples],
                recipe.seed,
                recipe.train.questions_per_tree,
                recipe.train.trees_per_step,
                recipe.train.largest_tree,
            )
        )
        self.steps = recipe.train.steps or self.windows.steps(recipe.train.epochs or 1)
        self.optimizer = MasterAdamW(
            self.engines.student.model,
            learning_rate=recipe.train.learning_rate,
            weight_decay=recipe.train.weight_decay,
        )
        self.trainer = WindowTrainer(recipe, self.engines, self.ledger)
        self.rollout = Rollout(
            self.trainer,
            self.windows,
            self.prepared,
            self.steps,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        self.calibration = Calibration(recipe, self.engines, self.steps)
        self.examples_seen = 0
        first_window = as_window_trees(self.prepared, self.windows.window(0))
        longest = max(first_window, key=lambda item: item.longest_tokens)
        choose_layouts(self.engines, recipe, longest)
        reset_peak_memory()
        if accelerator.is_main_process:
            found = [self.benchmark] + ([self.valid] if self.valid else [])
            described = environment(found, accelerator.num_processes, given.described())
            refuse_other_data(run, described)
            write_json(run.environment, described)
            if recipe.train.trackers:
                accelerator.init_trackers(recipe.name or "distilsql")

    # ---- the loop ----------------------------------------------------------------------------------------

    def loop(self) -> None:
        first_step = self._resume()
        self._prepare_source_and_teacher()
        with (
            progress("training", self.steps, done=first_step, unit="step") as advance,
            stopping_when(_STEP_SAVED) as stop,
        ):
            for step in range(first_step, self.steps):
                loss, learning_rate, norm = self._step(step)
                advance(detail=f"loss {loss.total:.3f}")
                self._log(step, loss, learning_rate, norm)
                self._evaluate_and_save(step + 1, stop)
            stop.when = "the model is written"
            if first_step < self.steps:
                # If writing the model fails, as on a full disk, nothing is trained again.
                self._save(self.steps)
            self._finish()
            if self._is_stop_requested(stop):
                raise KeyboardInterrupt

    def _evaluate_and_save(self, done: int, stop: StopRequest) -> None:
        """After a step, what is due then. Raises KeyboardInterrupt if it was to be the last."""
        every = self.recipe.train
        if every.evaluate_every_steps and done % every.evaluate_every_steps == 0:
            stop.when = "this evaluation is finished and its step saved"
            self._evaluate(done)
            stop.when = _STEP_SAVED
        is_due = done % every.save_every_steps == 0
        is_last = done < self.steps and self._is_stop_requested(stop)
        if done < self.steps and (is_due or is_last):
            self._save(done)
        if is_last:
            raise KeyboardInterrupt

    def _is_stop_requested(self, stop: StopRequest) -> bool:
        """Whether any process was asked to stop: they save together, so all of them stop after the same step."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        asked = sum_values(self.accelerator, [float(stop.number == number) for number in numbers])
        heard = [number for number, processes in zip(numbers, asked, strict=True) if processes]
        stop.number = stop.number or next(iter(heard), None)
        return bool(heard)

    def _prepare_source_and_teacher(self) -> None:
        """What both need before the first step; a resumed run finds most of it there."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        examples = self.windows.examples(self.steps)
        self.trainer.source.prepare(
            Beforehand(self.run, self.benchmark, self.prepared, examples, process, processes)
        )
        self.accelerator.wait_for_everyone()
        self.trainer.teacher.keep_states(
            self.recipe,
            self.prepared,
            is_longer_than_an_epoch=self.steps > self.windows.first_epoch_steps,
            process=process,
            processes=processes,
        )
        self.accelerator.wait_for_everyone()

    def _step(self, step: int) -> tuple[WindowLoss, float, float]:
        ready = self.rollout.window(step)
        items, trained = ready.items, ready.trained
        if step in self.calibration.steps:
            self.calibration.time_sft(items, self.optimizer)
        start = self.ledger.training_seconds
        own = self.trainer.denominators(items, trained)
        trained_total, gold_total = sum_values(self.accelerator, [float(own.trained), float(own.gold)])
        loss = self.trainer.accumulate(items, trained, Denominators(int(trained_total), int(gold_total)))
        loss = sum_loss(self.accelerator, loss)
        if not loss.finite:
            self._stop_on_bad_loss(step, loss)
        with self.ledger.phase(Phase.OPTIMIZER):
            sum_gradients(self.accelerator, self.optimizer.gradients())
            norm = self.optimizer.clip(self.recipe.train.clip_norm)
            if not torch.isfinite(torch.tensor(norm)):
                loss.culprits = [example.example.example_id for item in items for example in item.examples]
                self._stop_on_bad_loss(step, loss)
            options = self.recipe.train
            learning_rate = learning_rate_at(
                step,
                self.steps,
                options.learning_rate,
                options.warmup_share,
                options.final_learning_rate_share,
            )
            self.optimizer.step(learning_rate)
        if step in self.calibration.steps:
            seconds = ready.generation_seconds + self.ledger.training_seconds - start
            self.calibration.time_method(seconds, loss.examples)
        self.examples_seen += loss.examples
        return loss, learning_rate, norm

    def _stop_on_bad_loss(self, step: int, loss: WindowLoss) -> None:
        """Every process gets here, and names the examples of all of them."""
        culprits: list[str] = gather_object(loss.culprits)  # type: ignore[assignment]
        names = ", ".join(culprits[:5]) + ("…" if len(culprits) > 5 else "")
        raise TrainingError(
            f"The loss of step {step + 1} is not finite (examples {names}). Nothing of this step was applied and "
            f"the last checkpoint in {self.run.path} is kept. A lower train.learning_rate or train.precision = float32 "
            "may help; either is another run: --overwrite starts it anew."
        )

    # ---- log, evaluate, save -----------------------------------------------------------------------------

    def _log(self, step: int, loss: WindowLoss, learning_rate: float, norm: float) -> None:
        done = step + 1
        if not self.accelerator.is_main_process:
            return
        line = step_line(done, loss, learning_rate, norm, self.examples_seen, self.ledger)
        if self.on_step is not None:
            self.on_step(line)
        if done % self.recipe.train.log_every_steps and done != self.steps and done != 1:
            return
        append_line(self.run, line)
        if self.recipe.train.trackers:
            numbers = {key: value for key, value in line.items() if isinstance(value, int | float)}
            self.accelerator.log(numbers, step=done)

    def _evaluate(self, done: int) -> None:
        if self.accelerator.is_main_process and self.valid is not None:
            with self.ledger.phase(Phase.EVALUATION):
                accuracy = score_during_training(self.recipe, self.engines, self.valid, self.golds)
            metric = "execution accuracy" if self.valid.task == "sql" else "ROUGE-L"
            log.info(f"step {done}: {metric} {accuracy:.1%} on {self.valid.name}")
            append_line(self.run, {"step": done, "valid_accuracy": accuracy})
        self.accelerator.wait_for_everyone()

    def _save(self, done: int) -> None:
        pending: Any = gather_object(self.rollout.state())
        if self.accelerator.is_main_process:
            with self.ledger.phase(Phase.CHECKPOINT):
                state = {
                    "step": done,
                    "examples_seen": self.examples_seen,
                    "ledger": self.ledger.state(),
                    "calibration": self.calibration.state(),
                    "rollout": pending,
                    "source": self.trainer.source.state(),
                }
                save_checkpoint(self.run.checkpoint, self.optimizer.state(), state)
        self._say_kept(done)
        self.accelerator.wait_for_everyone()

    def _say_kept(self, done: int) -> None:
        saved = f"The checkpoint after step {done} of {self.steps} is" if done else "No step is"
        say_kept(f"{saved} saved in {self.run.path}.")

    def _resume(self) -> int:
        """The step to go on from; log lines written after the checkpoint are dropped."""
        found = load_checkpoint(self.run.checkpoint)
        done = 0
        if found is not None:
            tensors, state = found
            self.optimizer.load(tensors)
            self.ledger.load(state["ledger"])
            self.calibration.load(state["calibration"])
            self.rollout.load(state.get("rollout", []))
            self.trainer.source.load(state.get("source", {}))
            self.examples_seen = state["examples_seen"]
            done = int(state["step"])
            log.info(f"resuming {self.run.path} after step {done} of {self.steps}")
        self._say_kept(done)
        if self.accelerator.is_main_process:
            drop_lines_after(self.run, done)
        self.accelerator.wait_for_everyone()
        return done

    def _finish(self) -> None:
        if self.accelerator.is_main_process:
            self._save_model()
            write_json(self.run.summary, self._summary())
            shutil.rmtree(self.run.checkpoint.parent, ignore_errors=True)
        say_kept(f"{self.run.path} is finished.")
        self.accelerator.wait_for_everyone()
        if self.recipe.train.trackers:
            self.accelerator.end_training()

    def _save_model(self) -> None:
        unfinished = self.run.model.with_name("model.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            save_model(
                self.engines.student.model,
                self.engines.tokenizer,
                unfinished,
                merge_adapter=self.recipe.student.save_merged,
            )
            write_model_card(self.recipe, unfinished, steps=self.steps, examples_seen=self.examples_seen)
        except Exception as error:  # safetensors reports a full disk as its own error type
            shutil.rmtree(unfinished, ignore_errors=True)
            raise RunError(
                f"The model of {self.run.path} could not be written: {error}. The training is kept as a checkpoint; "
                "free some disk space and start the same command again, which only writes the model."
            ) from error
        shutil.rmtree(self.run.model, ignore_errors=True)
        unfinished.rename(self.run.model)

    def _summary(self) -> dict[str, Any]:
        beforehand_seconds = self.trainer.source.seconds_beforehand + self.trainer.teacher.seconds_beforehand
        return training_summary(
            self.recipe,
            self.engines,
            self.optimizer,
            self.ledger,
            self.calibration,
            steps=self.steps,
            examples_seen=self.examples_seen,
            beforehand_seconds=beforehand_seconds / self.accelerator.num_processes,
            of_source=self.trainer.source.summary(),
        )
