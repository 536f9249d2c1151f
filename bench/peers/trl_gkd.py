"""TRL's GKDTrainer: fully on-policy, reverse KL, sampling at temperature 1, as our gkd-rkl.

Its collator pads on the left, as the trainer's own does. The trainer divides a micro-batch's loss by the number of gold
tokens in the step, counted before the student has written what is trained on.
"""

from collections.abc import Sequence
from typing import Any

from peers.contender import Models, Options, Row, Step, padded
from peers.stand_in import stand_in_tokenizer
from peers.trl_step import A_ROW, arguments_of, counted, labelled, stepping


def make_step(models: Models, options: Options) -> Step:
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    pad = models.pad_token_id

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        prompts, golds = [row["prompt_ids"] for row in rows], [row["gold_ids"] for row in rows]
        whole = [prompt + gold for prompt, gold in zip(prompts, golds, strict=True)]
        labels = [[-100] * len(prompt) + gold for prompt, gold in zip(prompts, golds, strict=True)]
        return {
            "input_ids": padded(whole, pad, left=True),
            "attention_mask": padded([[1] * len(one) for one in whole], 0, left=True),
            "labels": padded(labels, -100, left=True),
            "prompts": padded(prompts, pad, left=True),
            "prompt_attention_mask": padded([[1] * len(one) for one in prompts], 0, left=True),
        }

    config = GKDConfig(
        **arguments_of(models, options),
        lmbda=1.0,
        beta=1.0,
        temperature=1.0,
        max_new_tokens=options.max_new_tokens,
        max_length=None,
        shuffle_dataset=False,
    )
    trainer = counted(GKDTrainer, labelled)(
        model=models.student,
        teacher_model=models.teacher,
        args=config,
        data_collator=collate,
        train_dataset=_dataset(A_ROW),
        processing_class=stand_in_tokenizer(models),
    )
    return stepping(trainer, models, _dataset)


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [{"prompt_ids": list(row.prompt), "gold_ids": list(row.completion)} for row in rows]
    )
