"""TRL's SFTTrainer: padded micro-batches as by default, flattened ones (padding-free), and packed ones.

TRL recommends flattening and packing with FlashAttention 2. Without it, as here, `transformers` keeps the examples of a
flattened row apart by a mask made from their position ids; bench/exactness.py shows that they are apart.
"""

from collections.abc import Sequence
from typing import Any

from peers.contender import Models, Options, Row, Step
from peers.stand_in import stand_in_tokenizer
from peers.trl_step import A_ROW, Counts, arguments_of, counted, labelled, stepping


def padded(models: Models, options: Options) -> Step:
    return _make_step(models, options, labelled, _dataset)


def padding_free(models: Models, options: Options) -> Step:
    return _make_step(models, options, _flattened, _dataset, padding_free=True)


def packed(models: Models, options: Options) -> Step:
    """Packs hold as many tokens as a micro-batch of the longest rows would."""
    from datasets import disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()

    def dataset_of(rows: Sequence[Row]) -> Any:
        longest = max(len(row.prompt) + len(row.completion) for row in rows)
        return pack_dataset(_dataset(rows), options.micro_batch * longest, "bfd")

    one_pack = Options(**vars(options) | {"micro_batch": 1})
    return _make_step(models, one_pack, _flattened, dataset_of, packing=True, packing_strategy="bfd")


def _make_step(models: Models, options: Options, count: Any, dataset_of: Any, **settings: Any) -> Step:
    trainer = trainer_of(models, arguments_of(models, options) | settings, count=count)
    return stepping(trainer, models, dataset_of)


def trainer_of(
    models: Models, settings: dict[str, Any], rows: Sequence[Row] = A_ROW, *, count: Any = labelled
) -> Any:
    """The trainer itself, for `rows`, padding unless `settings` say otherwise."""
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        **{"shuffle_dataset": False} | settings,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},  # tokenised, packed and labelled already
    )
    return counted(SFTTrainer, count)(
        model=models.student,
        args=config,
        train_dataset=_dataset(rows),
        processing_class=stand_in_tokenizer(models),
    )


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "input_ids": [*row.prompt, *row.completion],
                "labels": [-100] * len(row.prompt) + list(row.completion),
            }
            for row in rows
        ]
    )


def _flattened(inputs: dict[str, Any]) -> Counts:
    """Examples of one flattened row begin at position 0."""
    _, tokens, positions = labelled(inputs)
    return int((inputs["position_ids"] == 0).sum()), tokens, positions
