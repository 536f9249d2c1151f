"""Synthesis: drafts in batches, checked, worded, split, and kept in a folder from which the same command resumes."""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distilsql.data.dice import Dice
from distilsql.data.splits import query_key
from distilsql.databases.fingerprint import take_fingerprint
from distilsql.databases.pool import ExecutionPool
from distilsql.databases.url import DatabaseUrl
from distilsql.errors import DatabaseUnavailable, DataError
from distilsql.lock import hold
from distilsql.progress import progress
from distilsql.synthesis.checks import Checker, Verdict
from distilsql.synthesis.folder import GRAMMAR_VERSION, QUERIES_FILE, KeptQuery, Progress, SynthFolder
from distilsql.synthesis.grammar.draft import Constant, Draft
from distilsql.synthesis.grammar.patterns import PATTERNS, draw_draft, level, word
from distilsql.synthesis.grammar.sql import Sql
from distilsql.synthesis.names import Names, draft_names, read_names, write_names
from distilsql.synthesis.profile import Profile, profile
from distilsql.synthesis.roles import Role
from distilsql.synthesis.source import Source
from distilsql.synthesis.splits import SPLITS, split_of, structure_of
from distilsql.synthesis.variants import write_variants
from distilsql.synthesis.world import World, make_world

BATCH = 64
# Training asks so many of its queries in two wordings.
ASKED_TWICE_SHARE = 0.5
# So many batches without a new query: the database has no more to ask.
PATIENCE = 12
# No pattern has more than so many times its share of the queries, so that simple ones do not fill a small database. The
# shares are among the patterns that the database allows: one without amounts has no averages to wait for.
LARGEST_OVERSHARE = 1.5

_NAMED = 5  # columns in a sentence
log = logging.getLogger(__name__)

# Takes what was made and gives the pairs of each query as (question, how it was worded).
Wording = Callable[[Sequence[KeptQuery], Checker, World], Sequence[Sequence[tuple[str, str]]]]


@dataclass(frozen=True)
class Synthesis:
    """What a synthesis made. `pairs` by split; `verdicts` say what became of the drafts."""

    folder: Path
    pairs: Mapping[str, int]
    queries: int
    verdicts: Mapping[str, int]
    is_exhausted: bool


def named(source: Source, folder: Path, names: Path | None = None) -> tuple[Profile, Names]:
    """The profile of a database, and its names: those in `names`, else those in the folder, else drafted. They are
    written to the folder."""
    found = profile(source)
    drafted = draft_names(source, found)
    file = names or SynthFolder(folder).names
    called = read_names(file, drafted) if names or file.is_file() else drafted
    if called is drafted:
        _say_unsaid(found, called, SynthFolder(folder).names)
    if not SynthFolder(folder).names.is_file():
        write_names(called, SynthFolder(folder).names)
    return found, called


def _say_unsaid(found: Profile, called: Names, file: Path) -> None:
    """Columns that the draft leaves out since their names are no nouns."""
    unsaid = [
        f"{table.name}.{column.name}"
        for table in found.tables
        for column in table.columns
        if column.role is not Role.NONE and called.tables[table.name].columns[column.name].kind is Role.NONE
    ]
    if unsaid:
        more = f" and {len(unsaid) - _NAMED} more" if unsaid[_NAMED:] else ""
        log.warning(
            f"No question is about {', '.join(unsaid[:_NAMED])}{more}: their names are no nouns. Give each a name "
            f"and a kind in {file}."
        )


def synthesise(
    source: Source,
    folder: Path,
    *,
    pairs: int,
    seed: int = 0,
    names: Path | None = None,
    wording: Wording | None = None,
    workers: int | None = None,
) -> Synthesis:
    """Make `pairs` question/SQL pairs about a database, in `folder`; fewer where it has no more to ask.

    The same arguments give the same pairs, however often it was interrupted, and on any number of workers. A folder
    that holds fewer pairs of the same synthesis is added to.

    Raises:
        DataError: the folder holds something else; `names` do not fit; nothing can be asked of the database.
        DatabaseUnavailable: the database cannot be read.
        RunInUse: another process is at work in the folder.
    """
    with hold(folder), _kept(folder), ExecutionPool(workers) as pool:
        made = SynthFolder(folder)
        made.refuse_other({"database": source.db_id})  # its names.toml would be refused as this database's
        found, called = named(source, folder, names)
        settings = {
            "database": source.db_id,
            "content": _content(source, pool),
            "names": hashlib.sha256(called.model_dump_json().encode()).hexdigest()[:16],
            "seed": seed,
            "grammar": GRAMMAR_VERSION,
        }
        made.claim(settings)
        world = make_world(found, called)
        if not world.topics:
            raise DataError(
                f"Nothing can be asked of {source}: none of its tables has rows, or names.toml leaves all out."
            )
        with tempfile.TemporaryDirectory() as scratch:
            checker = Checker(source, write_variants(source, found, Path(scratch), seed), pool)
            maker = _Maker(source, world, checker, made.read(), made, seed)
            is_exhausted = maker.make(pairs)
            queries = _first(maker.progress.queries, pairs)
            worded = (
                wording(queries, checker, world)
                if wording
                else [[(question, "template") for question in query.questions] for query in queries]
            )
        return _write(made, settings, queries, worded, maker.progress, is_exhausted)


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """If the database goes away in the middle, what was made is kept."""
    try:
        yield
    except DatabaseUnavailable as error:
        if not (folder / QUERIES_FILE).is_file():
            raise
        raise DatabaseUnavailable(
            f"{error} What was made is kept in {folder}: the same command goes on."
        ) from error


def _content(source: Source, pool: ExecutionPool) -> str:
    """What must be unchanged to resume: the file; on a server, whose rows may change meanwhile, the tables."""
    if isinstance(source.path, DatabaseUrl) and source.path.is_server:
        return hashlib.sha256(repr(source.schema).encode()).hexdigest()
    return take_fingerprint(source.path, pool).sha256


@dataclass
class _Maker:
    source: Source
    world: World
    checker: Checker
    progress: Progress
    folder: SynthFolder
    seed: int

    def __post_init__(self) -> None:
        self.sql = Sql(self.source.engine)
        self.uses = Counter(column for query in self.progress.queries for column in query.columns)
        self.keys = {query_key(query.sql, self.source.engine) for query in self.progress.queries}
        self.patterns = Counter(query.pattern for query in self.progress.queries)

    def make(self, pairs: int) -> bool:
        """Batches until there are `pairs`; True if the database had no more to ask first."""
        fruitless = 0
        with progress("making pairs", pairs, done=min(self.progress.pairs, pairs), unit="pair") as advance:
            while self.progress.pairs < pairs:
                before = self.progress.pairs
                kept = self._batch()
                fruitless = 0 if kept else fruitless + 1
                if fruitless == PATIENCE:
                    return True
                advance(min(self.progress.pairs, pairs) - before)
        return False

    def _batch(self) -> int:
        """One batch of drafts. What is drawn depends on earlier batches alone, so drafts are checked in parallel."""
        first = self.progress.drawn
        drafts: list[tuple[int, str, Draft, tuple[tuple[str, str], ...]]] = []
        verdicts: Counter[str] = Counter()
        keys: set[str] = set()
        for number in range(first, first + BATCH):
            found = draw_draft(self.world, self.sql, Dice(f"{self.seed}/draw/{number}"), self.uses)
            if found is None:
                continue
            text = self.sql.written(found[0].query)
            key = query_key(text, self.source.engine)
            if key in self.keys or key in keys:
                verdicts[Verdict.REPEATED.value] += 1
            elif self._is_frequent(found[0]):
                verdicts[Verdict.FREQUENT.value] += 1
            else:
                keys.add(key)
                drafts.append((number, text, *found))
        kept = []
        checked = self.checker.pool.each(len(drafts), lambda place: self.checker.check(drafts[place][1]))
        for (number, text, draft, columns), verdict in zip(drafts, checked, strict=True):
            query = self._worded(number, text, draft, columns) if verdict is Verdict.KEPT else None
            verdict = Verdict.UNSAID if verdict is Verdict.KEPT and query is None else verdict
            verdicts[verdict.value] += 1
            if query is not None:
                kept.append(query)
        self._keep(kept, first + BATCH, verdicts)
        return len(kept)

    def _is_frequent(self, draft: Draft) -> bool:
        allowed = {_FUNCTIONS[pattern]: _SHARES[pattern] for pattern in (draft.pattern, *self.patterns)}
        share = _SHARES[draft.pattern] / sum(allowed.values())
        return self.patterns[draft.pattern] >= 8 + LARGEST_OVERSHARE * share * len(self.keys)

    def _worded(
        self, number: int, text: str, draft: Draft, columns: tuple[tuple[str, str], ...]
    ) -> KeptQuery | None:
        dice = Dice(f"{self.seed}/words/{number}")
        key = query_key(text, self.source.engine)
        split, is_unseen = split_of(key, structure_of(draft.query), self.seed)
        times = 2 if split == "train" and dice.chance(ASKED_TWICE_SHARE) else 1
        questions = word(draft, times, dice)
        if not questions:
            return None
        constants = tuple((m.raw, tuple(m)) for m in draft.mentions if isinstance(m, Constant))
        return KeptQuery(
            text, draft.pattern, level(draft.query), split, is_unseen, tuple(questions), columns, constants
        )

    def _keep(self, kept: list[KeptQuery], drawn: int, verdicts: Counter[str]) -> None:
        self.folder.append(kept, drawn, verdicts)
        self.progress.drawn = drawn
        self.progress.queries += kept
        self.progress.verdicts.update(verdicts)
        for query in kept:
            self.uses.update(query.columns)
            self.keys.add(query_key(query.sql, self.source.engine))
            self.patterns[query.pattern] += 1


_VARIANTS = {
    "list_rows": ["list"],
    "distinct": ["distinct", "count_distinct"],
    "top": ["top", "top_some"],
    "most_common": ["most_common", "most_common_some"],
    "group_then_sort": ["group_sorted"],
    "per_parent": ["per_parent", "per_parent_all"],
    "parent_most": ["parent_most", "parent_most_some"],
    "by_parent_group": ["parent_group", "parent_group_aggregate"],
    "chain": ["chain", "chain_condition"],
    "link_count": ["link_count", "link_most"],
    "average_children": ["above_average_count"],
    "values_of_groups": ["values_both", "values_but_not"],
    "parents_of_groups": ["parents_both", "parents_but_not"],
    "shared_values": ["shared_either", "shared_both", "shared_but_not"],
}
# Of each pattern: the function that draws it (`top_some` is drawn beside `top`), and how often that one is drawn.
_FUNCTIONS = {name: p.__name__ for p in PATTERNS for name in _VARIANTS.get(p.__name__, [p.__name__])}
_SHARES = {name: weight for p, weight in PATTERNS.items() for name in _VARIANTS.get(p.__name__, [p.__name__])}


def _first(queries: Sequence[KeptQuery], pairs: int) -> list[KeptQuery]:
    """The queries of the first `pairs` pairs; the last batch may have made more."""
    taken, count = [], 0
    for query in queries:
        if count < pairs:
            questions = query.questions[: pairs - count]
            count += len(questions)
            taken.append(replace(query, questions=questions))
    return taken


def _write(
    folder: SynthFolder,
    settings: Mapping[str, Any],
    queries: Sequence[KeptQuery],
    worded: Sequence[Sequence[tuple[str, str]]],
    made: Progress,
    is_exhausted: bool,
) -> Synthesis:
    pairs: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for query, questions in zip(queries, worded, strict=True):
        for question, source in questions:
            pair = {
                "question": question,
                "sql": query.sql,
                "difficulty": query.level,
                "pattern": query.pattern,
            }
            pair |= {"wording": source, **({"structure": "unseen"} if query.is_unseen else {})}
            pairs[query.split].append(pair)
    counts = {split: len(found) for split, found in pairs.items()}
    report = {
        "pairs": counts,
        "queries": len(queries),
        "drafts": made.drawn,
        "verdicts": dict(sorted(made.verdicts.items())),
        "patterns": dict(Counter(query.pattern for query in queries).most_common()),
        "levels": dict(Counter(query.level for query in queries)),
        "columns_asked_about": len({column for query in queries for column in query.columns}),
    }
    folder.write_pairs(
        {split: Dice(f"{settings['seed']}/{split}").shuffled(found) for split, found in pairs.items()},
        settings,
        report,
    )
    return Synthesis(folder.path, counts, len(queries), made.verdicts, is_exhausted)
