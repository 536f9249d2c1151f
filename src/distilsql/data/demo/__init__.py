"""The embedded benchmark: small everyday databases and questions about them, generated from a fixed seed.

Everything is made on first use and kept in a folder named by the generator's own checksum, so a generator that
changed never reads what an older one wrote.
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.demo.build import write_demo
from distilsql.data.demo.domain import schema_of
from distilsql.data.demo.domains import SEEN, UNSEEN
from distilsql.data.example import Example
from distilsql.data.pairs import pairs_source
from distilsql.data.source import Source
from distilsql.databases.database import Database
from distilsql.databases.file_cache import default_cache_folder
from distilsql.errors import DataError

# Split as it is asked for → file it is read from, and the databases it keeps.
_ALL = frozenset(domain.db_id for domain in (*SEEN, *UNSEEN))
_SPLITS = {
    "train": ("train", _ALL),
    "valid": ("valid", _ALL),
    "test": ("test", _ALL),
    "test-seen": ("test", frozenset(domain.db_id for domain in SEEN)),
    "test-unseen": ("test", frozenset(domain.db_id for domain in UNSEEN)),
}
DEMO_SPLITS = tuple(_SPLITS)


def load_demo(split: str, root: Path | None = None) -> SqlBenchmark:
    """The demo benchmark's `split`: train, valid, test, or test's part on seen or on unseen databases.

    Generated on first use (a few seconds) under `root/demo`, or in the user's cache folder without a root.
    Raises DataError for an unknown split and for a generated folder that somebody changed.
    """
    folder, file_name, db_ids = _split(split, root)
    databases = {
        domain.db_id: Database(
            domain.db_id,
            _existing(folder, folder / "databases" / domain.db_id / f"{domain.db_id}.sqlite"),
            schema_of(domain),
        )
        for domain in (*SEEN, *UNSEEN)
        if domain.db_id in db_ids
    }
    examples = _read_examples(folder, file_name)
    return SqlBenchmark(
        name=f"demo:{split}",
        examples=tuple(example for example in examples if example.db_id in databases),
        databases=databases,
        evaluator="spider",
    )


def demo_source(split: str, root: Path | None = None) -> Source:
    """The files of a split, to be checked as own pairs are. Generates and raises as `load_demo` does."""
    folder, file_name, db_ids = _split(split, root)
    return replace(
        pairs_source(folder / f"{file_name}.jsonl", folder / "databases"),
        name=f"demo:{split}",
        evaluator="spider",
        part=lambda examples: [example for example in examples if example.db_id in db_ids],
    )


def _split(split: str, root: Path | None) -> tuple[Path, str, frozenset[str]]:
    """The generated folder, the name of the split's file, and the databases it keeps."""
    if split not in _SPLITS:
        raise DataError(f"The demo has no split '{split}'. Use one of: {', '.join(_SPLITS)}.")
    return _generated((root or default_cache_folder()) / "demo"), *_SPLITS[split]


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


def _generated(base: Path) -> Path:
    """The folder with the generated files under `base`; complete or not there at all."""
    folder = base / _generator_checksum()
    if folder.is_dir():
        return folder
    try:
        base.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=base))
    except OSError as error:
        raise DataError(
            f"The demo's folder {base} cannot be written ({error.strerror}); make it writable or set XDG_CACHE_HOME to "
            "another place."
        ) from error
    try:
        write_demo(unfinished)
        unfinished.chmod(0o755)  # mkdtemp's folder is for its owner alone
        unfinished.rename(folder)
    except OSError:
        # Another process may have finished first; its files are the same.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _generator_checksum() -> str:
    digest = hashlib.sha256()
    sources = resources.files(__package__).iterdir()
    for source in sorted((item for item in sources if item.name.endswith(".py")), key=lambda item: item.name):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
