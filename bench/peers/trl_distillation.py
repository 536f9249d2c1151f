"""TRL's DistillationTrainer: fully on-policy, reverse KL, sampling at temperature 1, as our gkd-rkl.

It generates for a whole step at once: its loader yields the step's prompts in one list, and its RepeatSampler yields
that list once for every micro-batch.
"""

from collections.abc import Sequence
from typing import Any

from peers.contender import Done, Models, Options, Row, Step
from peers.stand_in import stand_in_tokenizer, text_of
from peers.trl_step import A_ROW, Counts, arguments_of, counted, stepping


def make_step(models: Models, options: Options) -> Step:
    return _step_of(trainer_of(models, options, arguments_of(models, options)), models)


def plainly_sampled(models: Models, options: Options) -> Step:
    """What becomes of it when a plain sampler takes the place of its own, as one might for a fixed order: a step has
    one list of prompts, generates for all of them, and trains on its first micro-batch alone."""
    from torch.utils.data import SequentialSampler

    trainer = trainer_of(models, options, arguments_of(models, options))
    trainer._get_train_sampler = lambda dataset=None: SequentialSampler(dataset or trainer.train_dataset)
    return _step_of(trainer, models)


def _step_of(trainer: Any, models: Models) -> Step:
    one_train = stepping(trainer, models, _dataset)

    def step(rows: Sequence[Row]) -> Done:
        # It counts micro-batches over its lifetime to know when to generate; here every `train()` begins a step.
        trainer._step, trainer._buffered_inputs = 0, None
        return one_train(rows)

    return step


def trainer_of(
    models: Models, options: Options, settings: dict[str, Any], rows: Sequence[Row] = A_ROW
) -> Any:
    """The trainer itself, for `rows`."""
    from trl import DistillationConfig, DistillationTrainer

    config = DistillationConfig(
        **{"shuffle_dataset": False} | settings,
        beta=1.0,
        temperature=1.0,
        max_completion_length=options.max_new_tokens,
    )
    return counted(DistillationTrainer, _generated)(
        model=models.student,
        teacher_model=models.teacher,
        args=config,
        train_dataset=_dataset(rows),
        processing_class=stand_in_tokenizer(models),
    )


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": text_of(row.prompt)} for row in rows])


def _generated(inputs: dict[str, Any]) -> Counts:
    mask_BT = inputs["completion_mask"]
    return len(mask_BT), int(mask_BT.sum()), inputs["prompt_ids"].numel() + mask_BT.numel()
