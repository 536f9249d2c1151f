"""Instruction following: the benchmarks of MiniLLM (Gu et al. 2024) and DistiLLM (Ko et al. 2024), and own files.

A record has `instruction`, `output` (a text, or a list of texts where several answers are right) and, where there is
one, `input`. Texts are kept as they are, outer blanks included, so that prompts equal the ones of that line of work.
"""

from collections.abc import Sequence
from pathlib import Path

from distilsql.data.example import Instruction
from distilsql.data.records import Problem, Record, RecordError, read_records
from distilsql.data.text import suffix_of

INSTRUCT_FOLDER = "instruct"
# spec: file under the data folder's `instruct/`. `dolly:dev` was held out of Dolly's training part; the others are
# what that line of work evaluates on.
_FILES = {
    "dolly:dev": "dolly_dev.jsonl",
    "dolly:valid": "dolly_valid.jsonl",
    "self-instruct:valid": "self-inst_valid.jsonl",
    "vicuna:valid": "vicuna_valid.jsonl",
    "sinst:valid": "sinst_11plus_valid.jsonl",
}
INSTRUCT_SPECS = tuple(_FILES)


def instruct_file(spec: str, root: Path) -> Path:
    """Where `spec`, one of INSTRUCT_SPECS, lies under the data folder `root`."""
    return root / INSTRUCT_FOLDER / _FILES[spec]


def is_instruct_file(path: Path) -> bool:
    """Whether an own `.jsonl` file holds instructions, not question/SQL pairs: its first record says."""
    if suffix_of(path) != ".jsonl" or not path.is_file():
        return False
    try:
        records = read_records(path)
    except RecordError:
        return False
    first = next((record for record in records if isinstance(record, Record)), None)
    return first is not None and "instruction" in first.fields and "question" not in first.fields


def read_instructions(path: Path) -> tuple[tuple[Instruction, ...], tuple[Problem, ...]]:
    """The good records of a file, and the faults of the others, so that all of them can be reported at once."""
    instructions: list[Instruction] = []
    problems: list[Problem] = []
    try:
        for record in read_records(path):
            try:
                instructions.append(_read_instruction(record))
            except RecordError as error:
                problems.append(error.problem)
        if not instructions and not problems:
            problems.append(Problem("empty", path, None, "", "holds no instructions"))
    except RecordError as error:
        problems.append(error.problem)
    return tuple(instructions), tuple(problems)


def _read_instruction(record: Record | RecordError) -> Instruction:
    """The Instruction in a record. Raises RecordError."""
    if isinstance(record, RecordError):
        raise record
    record.text("instruction")  # complains if there is none
    return Instruction(
        example_id=f"{record.file.stem}/{record.index}",
        instruction=record.fields["instruction"],
        input=record.fields["input"] if record.optional_text("input") else "",
        references=tuple(_references(record)),
    )


def _references(record: Record) -> Sequence[str]:
    output = record.fields.get("output")
    if isinstance(output, list):
        if not output or not all(isinstance(text, str) and text.strip() for text in output):
            message = f"expected a list of texts that are not empty, found {output!r}"
            raise record.error("malformed", "output", message)
        return output
    record.text("output")  # complains if it is missing, no text or empty
    return [record.fields["output"]]
