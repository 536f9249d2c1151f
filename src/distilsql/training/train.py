"""Training: one loop for every method of the table, resumable to the bit.

The loop does not know which method it runs, nor who writes the completions. What it guarantees: the loss is
normalised over the whole optimizer window (all trees, all processes), the same seed gives the same run, and a run
that was killed at any point resumes from its last checkpoint and ends with the same weights.
"""

import logging
import operator
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from distilsql.errors import TrainingError
from distilsql.files import write_json
from distilsql.inference.given import Examples, Given, as_benchmark, refuse_others
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import Prepared
from distilsql.interrupt import StopRequest, say_kept, stopping_when
from distilsql.lock import hold
from distilsql.progress import progress
from distilsql.runs.folder import (
    RunFolder,
    append_line,
    begun_in,
    check_is_run_folder,
    drop_lines_after,
    open_run,
    recipe_text,
)
from distilsql.runs.recipe import Recipe
from distilsql.runs.records import Summary
from distilsql.training.across_processes import (
    accelerator_of,
    ending_with_the_others,
    is_stop_requested,
    speaking_for_all,
    sum_denominators,
    sum_loss,
    sum_values,
    survey_together,
)
from distilsql.training.calibration import Calibration
from distilsql.training.checkpoint import load_checkpoint, save_checkpoint, source_state
from distilsql.training.environment import record_environment, reset_peak_memory
from distilsql.training.finished_model import write_model
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.log import step_line
from distilsql.training.optimizer import MasterAdamW, learning_rate_at
from distilsql.training.rollout import Rollout
from distilsql.training.settle import settled_for_run
from distilsql.training.setup import (
    check_trackers,
    choose_layouts,
    load_training_data,
    load_training_engines,
    prepare_examples,
    window_stream,
)
from distilsql.training.sources.source import Beforehand
from distilsql.training.summary import training_summary
from distilsql.training.validation import own_validation_loss, score_during_training
from distilsql.training.window import WindowLoss, WindowTrainer
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
    """Train as the recipe says, in the run folder `out`; if it holds the same recipe, resume it.

    Keys set to `auto` (precision, prompt) are resolved here, once; the recipe in the folder records what was chosen.

    Models, the student's tokenizer and examples that are in memory take the place of what the recipe names (`memory`
    is a name for them; see `Given`); none of them is changed. Examples are a benchmark, or question/SQL pairs as
    mappings about the database of the recipe. The recipe in the folder names them by their checksums, so the run goes
    on with the same ones alone.

    `on_step` is called after every optimizer step, in the first process, with the step's line of log.jsonl (see
    `step_line`), whether or not it is one of those that are logged. If it raises, the training ends, and the step
    is repeated after a resume unless a checkpoint includes it.

    Raises:
        RunInUse: another process is working in the folder.
        RunError: the folder holds another run or cannot be written.
        DataError, ModelError: what the recipe names, or what is given, is missing or does not fit.
        TrainingError: the loss is not finite, or memory ran out; the last good checkpoint is kept.
        KeyboardInterrupt: after SIGINT or SIGTERM, once the current step is saved; after a second one, at once.
    """
    out = Path(out)
    check_trackers(recipe.train.trackers)
    given = Given(
        student, tokenizer, teacher, as_benchmark(train_set, recipe), as_benchmark(valid_set, recipe)
    )
    recipe = given.named_in(recipe)
    begun = None if overwrite else begun_in(out)
    if begun is not None:
        refuse_others(recipe, begun, out)
    accelerator = accelerator_of(recipe.train.trackers, out)
    with ExitStack() as held:
        held.enter_context(speaking_for_all(accelerator.is_main_process))
        held.enter_context(ending_with_the_others(accelerator, out))
        recipe, settled_why = settled_for_run(recipe, None if overwrite else out, accelerator, given)
        with accelerator.main_process_first():
            if accelerator.is_main_process:
                check_is_run_folder(out)
                if overwrite or not RunFolder(out).is_finished():
                    held.enter_context(hold(out))
            run = open_run(
                out, recipe_text(recipe, out, same), overwrite=overwrite and accelerator.is_main_process
            )
        if run.is_finished():
            log.info(f"{out} is already finished; pass --overwrite to start over.")
        else:
            for sentence in settled_why:
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


class _Trainer:
    """The state of one training: what the loop needs, prepared once."""

    def __init__(
        self, recipe: Recipe, run: RunFolder, accelerator: Accelerator, on_step: OnStep | None, given: Given
    ) -> None:
        self.recipe, self.run, self.accelerator, self.on_step = recipe, run, accelerator, on_step
        self.ledger = Ledger(accelerator.device)
        self.data = load_training_data(recipe, is_judging=accelerator.is_main_process, given=given)
        self.engines: Engines = load_training_engines(
            recipe, accelerator.device, given=given, processes=accelerator.num_processes
        )
        self.prepared: Prepared = prepare_examples(recipe, self.data.benchmark, self.engines)
        self.windows = window_stream(recipe, self.prepared)
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
        with progress("comparing a shared prefix with separate sequences"):
            choose_layouts(self.engines, recipe, as_window_trees(self.prepared, self.windows.window(0)))
        reset_peak_memory()
        if accelerator.is_main_process:
            record_environment(run, self.data.benchmarks, accelerator.num_processes, given.described())
            if recipe.train.trackers:
                accelerator.init_trackers(recipe.name or "distilsql")

    # ---- the loop ----------------------------------------------------------------------------------------

    def loop(self) -> None:
        first_step = self._resume()
        self._prepare_source_and_teacher()
        if first_step == 0 and self.trainer.source.validates_every:
            self._tell_validation_loss()
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
            if is_stop_requested(self.accelerator, stop):
                raise KeyboardInterrupt

    def _evaluate_and_save(self, done: int, stop: StopRequest) -> None:
        """Do what is due after a step. Raises KeyboardInterrupt if the training was asked to stop."""
        every = self.recipe.train
        if every.evaluate_every_steps and done % every.evaluate_every_steps == 0:
            stop.when = "this evaluation is finished and its step saved"
            self._evaluate(done)
            stop.when = _STEP_SAVED
        tell_every = self.trainer.source.validates_every
        if tell_every and done % tell_every == 0:
            self._tell_validation_loss()
        is_due = done % every.save_every_steps == 0
        is_last = done < self.steps and is_stop_requested(self.accelerator, stop)
        if done < self.steps and (is_due or is_last):
            self._save(done)
        if is_last:
            raise KeyboardInterrupt

    def _prepare_source_and_teacher(self) -> None:
        """What both need before the first step; a resumed run finds most of it there."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        examples, epoch = self.windows.examples(self.steps), self.windows.first_epoch_steps
        self.trainer.source.prepare(
            Beforehand(self.run, self.data.benchmark, self.prepared, examples, process, processes, epoch)
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
        self.trainer.share_done = step / self.steps
        ready = self.rollout.window(step)
        items, trained = ready.items, ready.trained
        if step in self.calibration.steps:
            beside = [ready.stand_in.item] if ready.stand_in else []
            self.calibration.time_sft([*items, *beside], self.optimizer)
        start = self.ledger.training_seconds
        survey = survey_together(self.trainer, ready)
        whole = sum_denominators(self.accelerator, self.trainer.denominators(items, trained))
        loss = self.trainer.accumulate(items, trained, whole, survey, ready.stand_in)
        loss = sum_loss(self.accelerator, loss)
        if not loss.finite:
            self._stop_on_bad_loss(step, loss)
        with self.ledger.phase(Phase.OPTIMIZER):
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
        self.trainer.learn(loss, is_in_first_epoch=step < self.windows.first_epoch_steps)
        if step in self.calibration.steps:
            seconds = ready.generation_seconds + self.ledger.training_seconds - start
            self.calibration.time_method(seconds, loss.examples)
        self.examples_seen += loss.examples
        return loss, learning_rate, norm

    def _stop_on_bad_loss(self, step: int, loss: WindowLoss) -> None:
        """Called in every process; the message names the examples of all processes."""
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
        with self.engines.student.sharding.whole(), self.ledger.phase(Phase.EVALUATION):
            self._score(done)
        self.accelerator.wait_for_everyone()

    def _score(self, done: int) -> None:
        if self.accelerator.is_main_process and self.data.valid is not None:
            valid = self.data.valid
            accuracy = score_during_training(self.recipe, self.engines, valid, self.data.golds)
            metric = "execution accuracy" if valid.task == "sql" else "ROUGE-L"
            log.info(f"step {done}: {metric} {accuracy:.1%} on {valid.name}")
            append_line(self.run, {"step": done, "valid_accuracy": accuracy})

    def _tell_validation_loss(self) -> None:
        """The same number in every process; what it takes is part of what the method costs."""
        with self.engines.student.sharding.whole(), self.ledger.phase(Phase.STUDENT):
            process = self.accelerator.process_index
            own = own_validation_loss(self.recipe, self.engines, self.data.valid, process)
            self.trainer.source.hear(*sum_values(self.accelerator, [own]))

    def _save(self, done: int) -> None:
        pending: Any = gather_object(self.rollout.state())
        sources: Any = gather_object([self.trainer.state()])
        with self.ledger.phase(Phase.CHECKPOINT):
            state = {
                "step": done,
                "examples_seen": self.examples_seen,
                "ledger": self.ledger.state(),
                "calibration": self.calibration.state(),
                "rollout": pending,
                "sources": sources,
            }
            save_checkpoint(self.run.checkpoint, self.optimizer.state(), state, self.accelerator)
        self._say_kept(done)
        self.accelerator.wait_for_everyone()

    def _say_kept(self, done: int) -> None:
        saved = f"The checkpoint after step {done} of {self.steps} is" if done else "No step is"
        say_kept(f"{saved} saved in {self.run.path}.")

    def _resume(self) -> int:
        """The step to resume from; log lines written after the checkpoint are dropped."""
        found = load_checkpoint(self.run.checkpoint, self.optimizer.room)
        done = 0
        if found is not None:
            tensors, state = found
            self.optimizer.load(tensors)
            self.ledger.load(state["ledger"])
            self.calibration.load(state["calibration"])
            self.rollout.load(state.get("rollout", []))
            own = source_state(state, self.accelerator.process_index, self.accelerator.num_processes)
            self.trainer.load(own)
            self.examples_seen = state["examples_seen"]
            done = int(state["step"])
            log.info(f"resuming {self.run.path} after step {done} of {self.steps}")
        self._say_kept(done)
        if self.accelerator.is_main_process:
            drop_lines_after(self.run, done)
        self.accelerator.wait_for_everyone()
        return done

    def _finish(self) -> None:
        with self.engines.student.sharding.whole():
            if self.accelerator.is_main_process:
                write_model(
                    self.recipe, self.run, self.engines, steps=self.steps, examples_seen=self.examples_seen
                )
        if self.accelerator.is_main_process:
            write_json(self.run.summary, self._summary().to_json())
            shutil.rmtree(self.run.checkpoint.parent, ignore_errors=True)
        say_kept(f"{self.run.path} is finished.")
        self.accelerator.wait_for_everyone()
        if self.recipe.train.trackers:
            self.accelerator.end_training()

    def _summary(self) -> Summary:
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
            of_method=self.trainer.summary(),
        )
