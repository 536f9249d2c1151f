"""Values inside words: where a text does not set its words apart, or joins them.

Chinese, Japanese, Thai, Lao, Khmer and Burmese write no spaces; Korean, Arabic and Hebrew join particles to a word;
German, Dutch and the Scandinavian languages write compounds as one word. There a value is found by its spelling alone,
and of those that overlap the first and longest is taken, as a dictionary segments Chinese (forward maximum matching).
Text without any of this has no inner values.
"""

from collections.abc import Callable
from unicodedata import normalize

import regex

from distilsql.databases.bm25 import stopwords

MAX_CHARACTERS = 25  # of a value that is looked for
_MOST_JOINED = 4  # letters that Korean, Arabic or Hebrew joins to a word, such as وبال
_SHORTEST_PART = 4  # letters of a compound's part

_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー々]")
_KATAKANA = regex.compile(r"[\p{Katakana}ー]")
_HAN = regex.compile(r"[\p{Han}々]")
_JOINING = regex.compile(r"[\p{Hangul}\p{Arabic}\p{Hebrew}]")
_MARK = regex.compile(r"\p{M}")
_WORD = regex.compile(r"\w+")
_COMMON_HAN = frozenset(stopwords.STOPWORDS_CHINESE) | frozenset("有是否的何人日年月数大小多少")
_COMPOUNDING = (
    stopwords.STOPWORDS_GERMAN,
    stopwords.STOPWORDS_DUTCH,
    stopwords.STOPWORDS_SWEDISH,
    stopwords.STOPWORDS_NORWEGIAN,
    stopwords.STOPWORDS_DANISH,
)


def folded(text: str) -> str:
    """`text` as it is compared: in Unicode's compatibility form (NFKC), without case."""
    return normalize("NFKC", text).casefold()


def inner_values(text: str, is_known: Callable[[str], bool]) -> list[tuple[int, int]]:
    """Where `text`, in NFKC, spells what `is_known` (folded) and is part of a longer word: starts and ends, in
    order and without overlap."""
    joins_words = _joins_words(text)
    if not joins_words and not _UNSPACED.search(text) and not _JOINING.search(text):
        return []
    found: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        at = word.start()
        while at < word.end():
            ends = range(min(word.end(), at + MAX_CHARACTERS), at, -1)
            parts = (end for end in ends if _is_part(text, word.span(), at, end, joins_words))
            end = next((end for end in parts if is_known(folded(text[at:end]))), None)
            if end is not None:
                found.append((at, end))
            at = end or at + 1
    return found


def _is_part(text: str, word: tuple[int, int], start: int, end: int, joins_words: bool) -> bool:
    part = text[start:end]
    if (start, end) == word and not _UNSPACED.search(part):
        return False  # whole words are matched as such
    if end < word[1] and _MARK.match(text[end]):
        return False  # in the middle of a letter
    if len(part) == 1 and (not _HAN.match(part) or part in _COMMON_HAN):
        return False
    if _is_cut(text, word, start) and _is_cut(text, word, end):
        return True
    touches_edge = start == word[0] or end == word[1]
    joined = (start - word[0]) + (word[1] - end)
    if len(part) > 1 and touches_edge and _JOINING.match(part[0]) and _JOINING.match(part[-1]):
        return joined <= _MOST_JOINED
    return joins_words and touches_edge and len(part) >= _SHORTEST_PART and part.isalpha()


def _is_cut(text: str, word: tuple[int, int], at: int) -> bool:
    """Whether one word may end and another begin at `at`, inside or at an edge of `word`."""
    if at in word:
        return True
    before, after = text[at - 1], text[at]
    if _KATAKANA.match(before) and _KATAKANA.match(after):
        return False  # one name
    return bool(_UNSPACED.match(before) or _UNSPACED.match(after)) or (
        bool(_JOINING.match(before)) != bool(_JOINING.match(after))
    )


def _joins_words(text: str) -> bool:
    """Whether `text` seems to be of a language of compounds: it has two of its commonest words, and more than of
    English's."""
    words = set(_WORD.findall(text.casefold()))
    english = len(words & set(stopwords.STOPWORDS_EN_PLUS))
    return any(len(words & set(common)) > max(english, 1) for common in _COMPOUNDING)
