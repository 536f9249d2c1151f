"""Tokens' texts are those of the tokenizer, and completions go to the teacher's tokens and back by them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from distilsql.errors import ModelError
from distilsql.models.tiny import train_tokenizer
from distilsql.models.token_text import TokenTexts
from distilsql.models.translation import Translator

TEXTS = ["SELECT name FROM singer WHERE age > 30", "größe naïve “x”", "a b  c\n"]


def sentencepiece(adds_a_space: bool) -> PreTrainedTokenizerFast:
    """As Llama 2's, whose decoder takes the space off again that it puts before a text, or as Gemma's."""
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    spaces: list[Any] = [normalizers.Prepend("▁")] if adds_a_space else []
    tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=["<unk>", "</s>", *alphabet], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    parts: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if adds_a_space else parts)
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [
        each for each in described["added_tokens"] if each["content"] not in alphabet
    ]
    tokenizer = Tokenizer.from_str(json.dumps(described))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


STUDENT = train_tokenizer(TEXTS, 320)
TEACHERS = {
    "byte-level": train_tokenizer(["SELECT count(*) FROM t", "singers"], 300),
    "Llama 2's": sentencepiece(adds_a_space=True),
    "Gemma's": sentencepiece(adds_a_space=False),
}
TRANSLATORS = {name: Translator(STUDENT, teacher, "student", name) for name, teacher in TEACHERS.items()}


@pytest.mark.parametrize("name", TEACHERS)
@given(text=st.text(st.sampled_from("SELECTsinger 30 \nößï“€😀"), max_size=30))
def test_the_bytes_of_a_texts_tokens_are_the_texts(name, text):
    texts = TRANSLATORS[name]._teacher
    assert b"".join(texts.pieces(texts.tokens(text))) == text.encode()


@pytest.mark.parametrize("name", TEACHERS)
@given(text=st.text(st.sampled_from("SELECTsinger 30 \nößï“€😀"), max_size=30))
def test_a_gold_is_translated_whole_and_back(name, text):
    translator = TRANSLATORS[name]
    gold = (*STUDENT(text).input_ids, STUDENT.eos_token_id)
    found = translator.of(gold)
    assert found.teacher == (
        *TEACHERS[name](text, add_special_tokens=False).input_ids,
        translator.teacher_eos,
    )
    assert all(span.can_be_compared for span in found.spans)
    assert (found.spans[-1].student_stop, found.spans[-1].teacher_stop) == (len(gold), len(found.teacher))
    assert translator.to_student(found.teacher) == gold


@pytest.mark.parametrize("name", TEACHERS)
@given(tokens=st.lists(st.integers(0, len(STUDENT) - 1), max_size=12))
def test_whatever_a_student_writes_is_read(name, tokens):
    """EOS in the midst of it, broken characters, special tokens: spans use every token, and compare the same text."""
    translator = TRANSLATORS[name]
    found = translator.of(tuple(tokens))
    ends = [(0, 0), *((span.student_stop, span.teacher_stop) for span in found.spans)]
    assert [(span.student_start, span.teacher_start) for span in found.spans] == ends[:-1]
    assert ends[-1] == (len(tokens), len(found.teacher))
    mine, theirs = translator._student, translator._teacher
    for span in found.spans:
        own = tokens[span.student_start : span.student_stop]
        other = found.teacher[span.teacher_start : span.teacher_stop]
        if span.can_be_compared and STUDENT.eos_token_id not in own:
            spelled = b"".join(theirs._bytes[token] for token in other)
            assert b"".join(mine._bytes[token] for token in own).strip() == spelled.strip()


def test_common_tokens_have_one_text():
    for name, translator in TRANSLATORS.items():
        known = translator.vocabularies
        assert (int(known.student_C[0]), int(known.teacher_C[0])) == (
            STUDENT.eos_token_id,
            TEACHERS[name].eos_token_id,
        )
        pairs = list(zip(known.student_C[1:].tolist(), known.teacher_C[1:].tolist(), strict=True))
        assert len(pairs) > 20
        assert all(translator._student._bytes[a] == translator._teacher._bytes[b] for a, b in pairs)
        letter = dict(pairs)[STUDENT.convert_tokens_to_ids("g")]
        assert letter == TEACHERS[name].convert_tokens_to_ids("g"), (
            "not the byte that a tokenizer falls back to"
        )
        assert known.student_size == len(STUDENT)
        assert known.teacher_size == len(TEACHERS[name])


def test_one_tokenizer_has_everything_in_common_with_itself():
    same = Translator(STUDENT, STUDENT, "student", "student")
    assert same.vocabularies.are_the_same
    assert (same.vocabularies.student_C == same.vocabularies.teacher_C).all()
    letters = [STUDENT.convert_tokens_to_ids(letter) for letter in "SELECT"]
    own = (*letters, STUDENT.eos_token_id)
    assert len(STUDENT("SELECT").input_ids) < len(letters)
    assert same.of(own).teacher == same.to_student(own) == own, "tokens that no tokenizer would cut so"


def test_tokenizers_that_change_a_text_are_refused():
    lower = Tokenizer(models.WordPiece({"[UNK]": 0, "select": 1}, unk_token="[UNK]"))
    lower.pre_tokenizer = pre_tokenizers.Whitespace()
    lower.decoder = decoders.WordPiece()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=lower, eos_token="[UNK]", unk_token="[UNK]")
    with pytest.raises(ModelError, match="its decoder is WordPiece"):
        TokenTexts(wrapped, "a teacher")
    folded = train_tokenizer(TEXTS, 300)
    folded.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match="does not keep the text"):
        TokenTexts(folded, "a teacher")
