"""The embedded benchmark: small everyday databases and questions about them, generated from a fixed seed.

Everything is made on first use and kept in a folder named by the generator's own checksum, so a generator that
changed never reads what an older one wrote.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.demo.build import write_demo, write_teacher_data
from distilsql.data.demo.databases import SEEN, UNSEEN, teacher_domains
from distilsql.data.demo.domain import Domain, schema_of
from distilsql.data.demo.lab import write_lab
from distilsql.data.example import Example
from distilsql.data.layout import Layout
from distilsql.data.pairs import pairs_layout
from distilsql.databases.database import Database
from distilsql.errors import DataError
from distilsql.files import default_cache_folder, new_folder


@dataclass(frozen=True)
class _Split:
    """`file_name` is the file that a split is read from, `domains` are the databases it keeps of it, and `write` makes
    the folder of both."""

    file_name: str
    domains: Callable[[], tuple[Domain, ...]]
    write: Callable[[Path], None] = write_demo


_SPLITS = {
    "train": _Split("train", lambda: SEEN),
    "noisy": _Split("noisy", lambda: SEEN),
    "valid": _Split("valid", lambda: SEEN),
    "test": _Split("test", lambda: (*SEEN, *UNSEEN)),
    "test-seen": _Split("test", lambda: SEEN),
    "test-unseen": _Split("test", lambda: UNSEEN),
    "teacher-train": _Split("teacher-train", lambda: (*SEEN, *teacher_domains()), write_teacher_data),
    "lab-train": _Split("lab-train", lambda: SEEN, write_lab),
    "lab-noisy": _Split("lab-noisy", lambda: SEEN, write_lab),
    "lab-valid": _Split("lab-valid", lambda: SEEN, write_lab),
    "lab-test": _Split("lab-test", lambda: (*SEEN, *UNSEEN), write_lab),
    "lab-test-seen": _Split("lab-test", lambda: SEEN, write_lab),
    "lab-test-unseen": _Split("lab-test", lambda: UNSEEN, write_lab),
}
# What a folder of generated files is called after the generator's checksum.
_FOLDERS: dict[Callable[[Path], None], str] = {
    write_demo: "",
    write_teacher_data: "-teacher",
    write_lab: "-lab",
}
DEMO_SPLITS = tuple(_SPLITS)


def load_demo(split: str, root: Path | None = None) -> SqlBenchmark:
    """The demo benchmark's `split`: train, noisy (train with some golds spoilt), valid, test, test's part on seen or on
    unseen databases, what the embedded teacher was trained on (teacher-train), or the laboratory's larger ones (lab-…).

    Generated on first use (seconds; half a minute for teacher-train) under `root/demo`, or in the user's cache folder
    without a root. Raises DataError for an unknown split and for a generated folder that somebody changed.
    """
    folder, known = _split(split, root)
    databases = {
        domain.db_id: Database(
            domain.db_id,
            _existing(folder, folder / "databases" / domain.db_id / f"{domain.db_id}.sqlite"),
            schema_of(domain),
        )
        for domain in known.domains()
    }
    examples = _read_examples(folder, known.file_name)
    return SqlBenchmark(
        name=f"demo:{split}",
        examples=tuple(example for example in examples if example.db_id in databases),
        databases=databases,
        evaluator="spider",
    )


def demo_layout(split: str, root: Path | None = None) -> Layout:
    """The files of a split, to be checked as own pairs are. Generates and raises as `load_demo` does."""
    folder, known = _split(split, root)
    db_ids = {domain.db_id for domain in known.domains()}
    return replace(
        pairs_layout(folder / f"{known.file_name}.jsonl", folder / "databases"),
        name=f"demo:{split}",
        evaluator="spider",
        ids_by_content=False,
        part=lambda examples: [example for example in examples if example.db_id in db_ids],
    )


def _split(split: str, root: Path | None) -> tuple[Path, _Split]:
    """The generated folder of a split, and what the split is."""
    if split not in _SPLITS:
        raise DataError(f"The demo has no split '{split}'. Use one of: {', '.join(_SPLITS)}.")
    known = _SPLITS[split]
    return _generated((root or default_cache_folder()) / "demo", known.write), known


def _read_examples(folder: Path, file_name: str) -> list[Example]:
    path = _existing(folder, folder / f"{file_name}.jsonl")
    examples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            record = json.loads(line)
            fields = {key: record[key] for key in ("db_id", "question", "gold_sql", "difficulty")}
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise _changed(folder, f"{path} line {number + 1} cannot be read ({error})") from error
        examples.append(Example(example_id=f"{file_name}/{number}", **fields))
    return examples


def _existing(folder: Path, path: Path) -> Path:
    if not path.is_file():
        raise _changed(folder, f"{path} is missing")
    return path


def _changed(folder: Path, what: str) -> DataError:
    return DataError(
        f"The generated demo benchmark was changed: {what}. Delete the folder {folder}; it is made again."
    )


def _generated(base: Path, write: Callable[[Path], None]) -> Path:
    """The folder under `base` with the files that `write` makes; complete or not there at all."""
    folder = base / (_generator_checksum() + _FOLDERS[write])
    if folder.is_dir():
        return folder
    try:
        base.mkdir(parents=True, exist_ok=True)
        with new_folder(folder) as unfinished:  # another process may finish first; its files are the same
            write(unfinished)
    except OSError as error:
        raise DataError(
            f"The demo's folder {base} cannot be written ({error.strerror}); make it writable or set XDG_CACHE_HOME to "
            "another place."
        ) from error
    return folder


def _generator_checksum() -> str:
    digest = hashlib.sha256()
    files = resources.files(__package__).iterdir()
    for file in sorted((item for item in files if item.name.endswith(".py")), key=lambda item: item.name):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
