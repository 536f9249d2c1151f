"""A synthesis on disk: `synth.json` says what it is made from, `queries.jsonl` grows with every batch of queries, and
the three files of pairs are written from it. However the process ends, complete batches are kept."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distilsql.errors import DataError
from distilsql.files import lines_of, read_json, write_json, write_text
from distilsql.lock import contents
from distilsql.synthesis.names import NAMES_FILE
from distilsql.synthesis.splits import SPLITS

SYNTH_FILE = "synth.json"
QUERIES_FILE = "queries.jsonl"
# Other grammars and checks make other pairs of the same seed.
GRAMMAR_VERSION = 3


@dataclass(frozen=True)
class KeptQuery:
    """A query that passed all checks. `columns` are those it asks about; `constants` are (what the query has, the forms
    in which it may be said)."""

    sql: str
    pattern: str
    level: str
    split: str
    is_unseen: bool
    questions: tuple[str, ...]
    columns: tuple[tuple[str, str], ...] = ()
    constants: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass
class Progress:
    """What was made so far: `drawn` drafts, `queries` of them kept; `verdicts` count all of them."""

    drawn: int = 0
    queries: list[KeptQuery] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)

    @property
    def pairs(self) -> int:
        return sum(len(query.questions) for query in self.queries)


@dataclass(frozen=True)
class SynthFolder:
    path: Path

    @property
    def names(self) -> Path:
        return self.path / NAMES_FILE

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Write what the folder is made from, or check that it is this. Raises DataError if it holds anything else."""
        self.refuse_other(settings)
        if (self.path / SYNTH_FILE).is_file():
            return
        foreign = [path.name for path in contents(self.path) if path.name != NAMES_FILE]
        if foreign:
            raise DataError(
                f"{self.path} holds other files ({', '.join(sorted(foreign)[:3])}); choose an empty or a new folder "
                "with --out."
            )
        write_json(self.path / SYNTH_FILE, {"settings": dict(settings)})

    def refuse_other(self, settings: Mapping[str, Any]) -> None:
        """Raises DataError if the folder holds a synthesis with other values of these settings."""
        file = self.path / SYNTH_FILE
        if not file.is_file():
            return
        written = read_json(file)
        made_from = written.get("settings", {}) if isinstance(written, dict) else {}
        differ = [key for key in settings if made_from.get(key) != settings[key]]
        if differ:
            verb = "differs" if len(differ) == 1 else "differ"
            raise DataError(
                f"{self.path} holds another synthesis: its {listed(differ)} {verb}. "
                "Choose another folder with --out, or delete this one."
            )

    def read(self) -> Progress:
        """What whole batches have left; what an unfinished one wrote is dropped."""
        file = self.path / QUERIES_FILE
        found = Progress()
        if not file.is_file():
            return found
        waiting: list[KeptQuery] = []
        for line in lines_of(file):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                break
            if "drawn" in record:
                found.drawn = record["drawn"]
                found.verdicts.update(record["verdicts"])
                found.queries += waiting
                waiting = []
            else:
                waiting.append(_read_query(record))
        write_text(file, "".join(_batches(found)))
        return found

    def append(self, queries: Sequence[KeptQuery], drawn: int, verdicts: Mapping[str, int]) -> None:
        lines = [json.dumps(asdict(query), ensure_ascii=False) for query in queries]
        lines.append(json.dumps({"drawn": drawn, "verdicts": dict(verdicts)}))
        with (self.path / QUERIES_FILE).open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))

    def write_pairs(
        self, pairs: Mapping[str, Sequence[Mapping[str, Any]]], settings: Any, report: Any
    ) -> None:
        """`pairs` by split, each one line of its file; `report` says what the checks kept."""
        for split in SPLITS:
            lines = [json.dumps(dict(pair), ensure_ascii=False) + "\n" for pair in pairs[split]]
            write_text(self.path / f"{split}.jsonl", "".join(lines))
        write_json(self.path / SYNTH_FILE, {"settings": dict(settings), **report})


def _batches(found: Progress) -> Iterator[str]:
    for query in found.queries:
        yield json.dumps(asdict(query), ensure_ascii=False) + "\n"
    yield json.dumps({"drawn": found.drawn, "verdicts": dict(found.verdicts)}) + "\n"


def _read_query(record: dict[str, Any]) -> KeptQuery:
    columns = tuple((table, column) for table, column in record.pop("columns"))
    constants = tuple((raw, tuple(forms)) for raw, forms in record.pop("constants"))
    return KeptQuery(
        **{**record, "questions": tuple(record["questions"])}, columns=columns, constants=constants
    )


def listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)
