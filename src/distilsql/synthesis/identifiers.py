"""Identifiers as a person says them: `cst_nm_2` → "customer name", `dateOfBirth` → "date of birth"."""

import re
import tomllib
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Any

from distilsql.data.plural import plural

_LISTS: dict[str, Any] = tomllib.loads(
    (resources.files(__package__) / "words.toml").read_text(encoding="utf-8")
)
# What is written for short in schemas, and said in full.
ABBREVIATIONS: dict[str, str] = _LISTS["abbreviations"]
_WORDS = frozenset(_LISTS["words"].split())
_IRREGULAR: dict[str, str] = _LISTS["irregular"]
_SAME = frozenset(_LISTS["unchanging"].split())
_PHRASES: dict[str, str] = _LISTS["phrases"]
_RESERVED = frozenset(_LISTS["reserved"].split())
_SINGULAR_IN_S = re.compile(r"(ss|us|is|status|address|gas|bus|lens|campus|bonus|business|class|process)$")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[^\W\d_]+|\d+")


def word_list(name: str) -> frozenset[str]:
    """Words that tell a column's role, by the name of their list in `words.toml`."""
    return frozenset(_LISTS["roles"][name].split())


def words_of(identifier: str, known: Collection[str] = ()) -> list[str]:
    """The lower-case words of a name, as written: `custAddr_2` → cust, addr, 2. `known` are words of this database,
    beside the usual ones, that a name in one piece may be made of."""
    pieces = [piece.lower() for piece in _PIECE.findall(identifier)]
    return [word for piece in pieces for word in _segmented(piece, frozenset(known))] or [identifier.lower()]


def expanded(words: list[str], entities: Collection[str] = ()) -> list[str]:
    """Abbreviations in full. `entities` are what this database's tables are called: `prj` is "project" where there is
    such a table."""
    full = []
    for word in _PHRASES.get(" ".join(words), " ".join(words)).split():
        if word in ABBREVIATIONS and word not in _WORDS:
            full += ABBREVIATIONS[word].split()
        elif word in _WORDS or word in entities:
            full.append(word)
        else:
            full.append(_abbreviated(word, entities) or word)
    return [word for index, word in enumerate(full) if index == 0 or word != full[index - 1]]


def _abbreviated(word: str, entities: Collection[str]) -> str:
    """The one entity that `word` is the consonants or the beginning of; '' if there is none or several."""
    if not 2 < len(word) < 6 or word.isdigit():
        return ""
    consonant = {name for name in entities if name[0] + re.sub("[aeiou]", "", name[1:]) == word}
    return next(iter(consonant)) if len(consonant) == 1 else ""


@cache
def _segmented(piece: str, known: frozenset[str]) -> tuple[str, ...]:
    """A name in one piece as the words it is made of, if they are all known; at most four."""
    if piece in _WORDS or piece in known or piece in ABBREVIATIONS or len(piece) < 6:
        return (piece,)
    best: dict[int, tuple[str, ...]] = {0: ()}
    for end in range(2, len(piece) + 1):
        for start in range(max(0, end - 14), end - 1):
            word = piece[start:end]
            if start in best and (word in _WORDS or word in known) and len(best[start]) < 4:
                longer = (*best[start], word)
                if end not in best or len(longer) < len(best[end]):
                    best[end] = longer
    return best.get(len(piece), (piece,))


def plural_of(noun: str) -> str:
    """ "date of birth" → "dates of birth"; what is plural or has no plural stays."""
    cut = re.search(r" (of|in|for) ", noun)
    head, of, rest = (noun[: cut.start()], cut[0], noun[cut.end() :]) if cut else (noun, "", "")
    first, space, last = head.rpartition(" ")
    if last in _SAME or last in _IRREGULAR.values() or last.isdigit():
        return noun
    if last in _IRREGULAR:
        return f"{first}{space}{_IRREGULAR[last]}{of}{rest}"
    if is_plural(last) or (first and last.endswith("ed")):  # "documents to be destroyed"
        return noun
    if last.endswith("hero"):
        last += "e"
    return f"{first}{space}{plural(last)}{of}{rest}"


def is_plural(word: str) -> bool:
    return word.endswith("s") and not _SINGULAR_IN_S.search(word) and len(word) > 3


def singular_of(noun: str) -> str:
    """ "customers" → "customer", "categories" → "category"; what is singular stays."""
    cut = re.search(r" (of|for) ", noun)
    head, of, rest = (noun[: cut.start()], cut[0], noun[cut.end() :]) if cut else (noun, "", "")
    first, space, last = head.rpartition(" ")
    back = {many: one for one, many in _IRREGULAR.items()}
    if last in back and last not in ("data", "media"):
        last = back[last]
    elif last not in _SAME and is_plural(last):
        if last.endswith("ies") and len(last) > 4 and last not in ("movies", "cookies", "zombies", "ties"):
            last = last[:-3] + "y"
        elif re.search(r"(ss|x|ch|sh|us|zz)es$", last):
            last = last[:-2]
        else:
            last = last[:-1]
    return f"{first}{space}{last}{of}{rest}"


def is_bare(name: str) -> bool:
    """Whether a name needs no quotes in any dialect that there is."""
    return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)) and name.lower() not in _RESERVED
