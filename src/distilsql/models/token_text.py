"""The text of tokens: for each token of a vocabulary the bytes that it stands for."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from distilsql.errors import ModelError

_PROBES = ("SELECT count(*) FROM singer WHERE age > 20", "  naïve 1984-02\n\t„x“", "T1.`größe` = 'ab\\'c'")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "▁"


class TokenTexts:
    """The bytes of every token of a tokenizer of the `tokenizers` library, byte-level BPE or SentencePiece.

    Special tokens stand for their own names. `name` says in messages whose tokenizer it is.

    Raises:
        ModelError: it is of another kind, or the bytes of a text's tokens are not those of the text.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self.size = len(tokenizer)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise self._unreadable(name, "it has no fast tokenizer (tokenizer.json)")
        described = json.loads(backend.to_str())
        parts = _parts(described.get("decoder"))
        decoders = {part["type"] for part in parts}
        self._is_byte_level = "ByteLevel" in decoders
        if not self._is_byte_level and not decoders & {"ByteFallback", "Metaspace"}:
            raise self._unreadable(name, f"its decoder is {', '.join(sorted(decoders)) or 'none'}")
        # SentencePiece's tokenizers put a space before a text, which is not of the text.
        self._adds_a_space = not self._is_byte_level and any(
            part["type"] == "Strip" or part.get("prepend_scheme", "never") != "never" for part in parts
        )
        self.special = {token["id"] for token in described["added_tokens"] if token["special"]}
        added = {token["id"]: token["content"] for token in described["added_tokens"]}
        names = tokenizer.convert_ids_to_tokens(list(range(self.size)))
        bytes_alone = {token for token, piece in enumerate(names) if _BYTE.fullmatch(piece or "")}
        self._fallback = set() if self._is_byte_level else bytes_alone
        self._bytes = [
            added[token].encode() if token in added else self._bytes_of(piece or "")
            for token, piece in enumerate(names)
        ]
        for probe in _PROBES:
            tokens = self.tokens(probe)
            if b"".join(self.pieces(tokens)) != probe.encode():
                raise self._unreadable(name, f"it does not keep the text {probe!r}")

    def tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text as the tokenizer cuts it, without special ones around it."""
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes of each token of a text that these tokens begin."""
        found = [self._bytes[token] for token in tokens]
        if self._adds_a_space and found and found[0].startswith(b" ") and tokens[0] not in self.special:
            found[0] = found[0][1:]
        return found

    def ids_by_text(self, *, without: int) -> dict[tuple[bool, bytes], list[int]]:
        """From (is special, bytes) to the tokens with this text, all but `without`. SentencePiece's tokens of one byte,
        which it falls back to, come last: a character that is a token is never written by its byte."""
        found: dict[tuple[bool, bytes], list[int]] = defaultdict(list)
        for token in sorted(range(self.size), key=lambda token: token in self._fallback):
            piece = self._bytes[token]
            if token != without and piece:
                found[token in self.special, piece].append(token)
        return found

    def _bytes_of(self, piece: str) -> bytes:
        if self._is_byte_level:
            return bytes(_BYTE_OF[character] for character in piece) if set(piece) <= _BYTE_OF.keys() else b""
        byte = _BYTE.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace(_SPACE, " ").encode()

    @staticmethod
    def _unreadable(name: str, why: str) -> ModelError:
        return ModelError(
            f"The text of the tokens of {name} cannot be told: {why}. teacher.bridge needs byte-level BPE "
            "or SentencePiece tokenizers that keep text as it is."
        )


def common_tokens(
    student: TokenTexts, teacher: TokenTexts, student_eos: int, teacher_eos: int
) -> list[tuple[int, int]]:
    """Pairs of (student's, teacher's) ids of one text, special tokens with special ones, and of EOS with EOS."""
    theirs = teacher.ids_by_text(without=teacher_eos)
    pairs = [
        pair
        for text, ids in student.ids_by_text(without=student_eos).items()
        for pair in zip(ids, theirs.get(text, ()), strict=False)
    ]
    return [(student_eos, teacher_eos), *pairs]


def _parts(decoder: Any) -> list[dict[str, Any]]:
    """A decoder, as tokenizer.json describes it, or those that it is made of."""
    if not decoder:
        return []
    return (
        [part for each in decoder["decoders"] for part in _parts(each)]
        if "decoders" in decoder
        else [decoder]
    )


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's: a printable byte is written as itself, the others in their order as the characters from 256 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_level_alphabet()
