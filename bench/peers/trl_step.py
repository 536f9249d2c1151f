"""One optimizer step of a TRL trainer, run by its own loop on the rows it is given.

Configured as TRL's documentation advises for one device: fused AdamW, no activation checkpointing, nothing evaluated,
logged or saved. The clock starts and stops where `transformers` begins and ends an optimizer step, so what `train()`
does around it is not counted. Each trainer keeps its own sampler and collator. What the loss is computed from is
counted in the very inputs that `compute_loss` is called with.
"""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch

from peers.contender import Done, Models, Options, Row, Step, Stopwatch

Counts = tuple[int, int, int]  # rows, tokens in the loss, positions

# A trainer is not made without data; a step replaces it.
A_ROW = (Row([0, 0], [0]),)


def arguments_of(models: Models, options: Options) -> dict[str, Any]:
    """What every trainer's configuration has in common."""
    precise = next(models.student.parameters()).dtype == torch.float32 and not options.bfloat16_autocast
    return {
        "output_dir": tempfile.mkdtemp(prefix="trl-"),  # nothing is written to it
        "per_device_train_batch_size": options.micro_batch,
        "max_steps": 1,
        "bf16": not precise,
        "optim": "adamw_torch_fused",
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": options.max_norm or 0.0,  # 0 does not clip
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": models.device.type == "cpu",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": models.device.type == "cuda",
    }


def counted(trainer_class: Any, count: Callable[[dict[str, Any]], Counts]) -> Any:
    """The trainer, adding what each of its losses is computed from to `done`."""

    class Counted(trainer_class):  # type: ignore[misc]
        done = Done()

        def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
            rows, tokens, positions = count(inputs)
            self.done.rows += rows
            self.done.trained_tokens += tokens
            self.done.positions += positions
            loss = super().compute_loss(model, inputs, *rest, **named)
            self.done.loss = (self.done.loss or 0.0) + float(
                (loss[0] if isinstance(loss, tuple) else loss).detach()
            )
            return loss

    return Counted


def labelled(inputs: dict[str, Any]) -> Counts:
    """Rows of padded inputs whose `labels` are −100 where there is no loss."""
    labels_BT = inputs["labels"]
    return len(labels_BT), int((labels_BT[:, 1:] != -100).sum()), inputs["input_ids"].numel()


def stepping(trainer: Any, models: Models, dataset_of: Callable[[Sequence[Row]], Any]) -> Step:
    """A step that trains on a data set made of its rows: all of them, in micro-batches of equal size."""
    from transformers import PrinterCallback, TrainerCallback

    watch = Stopwatch(models.device)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            watch.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            trainer.done.seconds = watch.seconds()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    micro_batch = trainer.args.per_device_train_batch_size

    def step(rows: Sequence[Row]) -> Done:
        trainer.done = Done()
        trainer.train_dataset = dataset_of(rows)
        count = len(trainer.train_dataset)
        size = min(micro_batch, count)
        if count % size:
            raise ValueError(f"{count} rows are not a whole number of micro-batches of {size}")
        trainer.args.per_device_train_batch_size = size
        trainer.args.gradient_accumulation_steps = count // size
        trainer.train()
        return trainer.done

    return step
