"""A tokenizer of `transformers` whose text is the token ids themselves, for libraries that insist on text."""

from typing import Any

from peers.contender import Models


def stand_in_tokenizer(models: Models) -> Any:
    """Token 17 is written "17": `text_of(ids)` becomes the same ids again, and nothing is added to them."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    vocabulary = {str(number): number for number in range(models.vocabulary_size)}
    pad = str(models.pad_token_id)
    tokenizer = Tokenizer(kinds.WordLevel(vocabulary, unk_token=pad))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=str(models.tokenizer.eos_token_id),
        pad_token=pad,
        padding_side="left",
    )


def text_of(ids: Any) -> str:
    return " ".join(map(str, ids))
