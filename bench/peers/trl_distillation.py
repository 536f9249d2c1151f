"""TRL's DistillationTrainer: fully on-policy, reverse KL, sampling at temperature 1, as our gkd-rkl.

It generates for a whole step at once, and its loader yields that step's prompts once for every micro-batch (its
RepeatSampler). A plain sampler in its place makes it train on a part of the rows: see docs/decisions.md.
"""

from collections.abc import Sequence
from typing import Any

from peers.contender import Done, Models, Options, Row, Step
from peers.stand_in import stand_in_tokenizer, text_of
from peers.trl_step import Counts, arguments_of, counted, stepping


def make_step(models: Models, options: Options) -> Step:
    from trl import DistillationConfig, DistillationTrainer

    config = DistillationConfig(
        **arguments_of(models, options),
        beta=1.0,
        temperature=1.0,
        max_completion_length=options.max_new_tokens,
        shuffle_dataset=False,
    )
    trainer = counted(DistillationTrainer, _generated)(
        model=models.student,
        teacher_model=models.teacher,
        args=config,
        train_dataset=_dataset([Row([0, 0], [0])]),  # replaced at each step
        processing_class=stand_in_tokenizer(models),
    )
    one_train = stepping(trainer, models, _dataset)

    def step(rows: Sequence[Row]) -> Done:
        # It counts micro-batches over its lifetime to know when to generate; here every `train()` begins a step.
        trainer._step, trainer._buffered_inputs = 0, None
        return one_train(rows)

    return step


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"prompt": text_of(row.prompt)} for row in rows])


def _generated(inputs: dict[str, Any]) -> Counts:
    mask_BT = inputs["completion_mask"]
    return len(mask_BT), int(mask_BT.sum()), inputs["prompt_ids"].numel() + mask_BT.numel()
