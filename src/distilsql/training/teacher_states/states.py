"""The teacher's hidden states for methods whose completions never change: computed once, then read from disk.

The teacher is frozen and so are gold completions; its final hidden states at their positions (a few KB a token) give
its exact full-vocabulary distribution through its own head whenever they are needed again.

Rounding depends on which questions share a forward pass, and epochs shuffle them. So states are computed on trees of
their own: the questions of a prefix in the order of the data, as many at a time as training runs at most
(`train.largest_tree`, or `train.questions_per_tree` if that is more). A state is then a function of teacher and data,
and not of the step that needed it first; a run learns the same to the bit whether entries were there, were computed,
broke, or were made by another process. Where they cannot be kept at all (the disk is full) the teacher runs on the
trees of each window, and the run differs from one that kept them by rounding.
"""

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor

from distilsql.files import default_cache_folder
from distilsql.inference.prepare import Prepared
from distilsql.models.fingerprint import model_fingerprint
from distilsql.models.prefix_cache import PrefixCache
from distilsql.models.tree import Completion, PromptTree, as_branches
from distilsql.models.tree_model import TreeModel
from distilsql.progress import progress
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.sources.source import source_class
from distilsql.training.teacher_states.store import HiddenStore, open_store

log = logging.getLogger(__name__)

FORMAT = "1"  # raise it when entries, keys or the way states are computed change


@dataclass(frozen=True)
class _Entry:
    """A tree whose states are stored together: its examples' numbers in the training set, and its key."""

    key: str
    numbers: tuple[int, ...]


class TeacherHidden:
    """The teacher's hidden states of gold completions, by example number.

    Counts in the ledger: `teacher_hidden_hits`, examples of training windows whose states were read from disk, and
    `teacher_hidden_computed`, examples that this run put through the teacher for it.
    """

    def __init__(
        self,
        teacher: TreeModel,
        prefixes: PrefixCache,
        prepared: Prepared,
        questions_per_tree: int,
        store: HiddenStore,
        ledger: Ledger,
    ) -> None:
        self._teacher, self._prefixes, self._prepared = teacher, prefixes, prepared
        self._store, self._ledger = store, ledger
        self.entries = _entries(prepared, questions_per_tree)
        self._place: dict[int, tuple[_Entry, slice]] = {}
        for entry in self.entries:
            start = 0
            for number in entry.numbers:
                stop = start + len(prepared.examples[number].gold)
                self._place[number] = (entry, slice(start, stop))
                start = stop

    def of(self, numbers: Sequence[int]) -> Tensor:
        """Hidden states (N, E) at the gold completions of these examples, example after example."""
        found = {
            entry: self._store.read(entry.key) for entry in {self._place[number][0] for number in numbers}
        }
        hits = sum(found[self._place[number][0]] is not None for number in numbers)
        self._ledger.count("teacher_hidden_hits", hits)
        states = {entry: self._compute(entry) if read is None else read for entry, read in found.items()}
        rows = [states[entry][place] for entry, place in map(self._place.__getitem__, numbers)]
        # A copy even of one part: how a file lies in memory may change the rounding of what reads it.
        return torch.cat(rows).to(self._teacher.device)

    def missing(self) -> list[_Entry]:
        return [entry for entry in self.entries if self._store.seconds(entry.key) is None]

    def fill(self, rank: int, processes: int) -> None:
        """Compute this process's share of the entries that are not there. Raises OSError where they do not fit."""
        own = self.entries[rank::processes]
        missing = [entry for entry in own if self._store.seconds(entry.key) is None]
        there = sum(len(entry.numbers) for entry in own) - sum(len(entry.numbers) for entry in missing)
        with progress(
            "teacher's hidden states", sum(len(entry.numbers) for entry in own), done=there
        ) as advance:
            for entry in missing:
                self._compute(entry, must_keep=True)
                advance(len(entry.numbers))

    def make_room(self, budget_bytes: int) -> None:
        keys = {entry.key for entry in self.entries}
        self._store.make_room(keys, self.bytes(self.missing()), budget_bytes)

    def bytes(self, entries: Sequence[_Entry]) -> int:
        """Size of the states of the given entries, in bytes."""
        weight_VE = self._teacher.head().weight_VD
        rows = sum(len(self._prepared.examples[number].gold) for entry in entries for number in entry.numbers)
        return rows * weight_VE.shape[1] * weight_VE.element_size()

    def seconds(self) -> float:
        """What the states of all examples took to compute, whichever run did it; an entry that has gone since counts
        as the others do on average."""
        known = [
            (seconds, len(entry.numbers))
            for entry in self.entries
            if (seconds := self._store.seconds(entry.key))
        ]
        examples = sum(count for _, count in known)
        return sum(seconds for seconds, _ in known) * len(self._prepared.examples) / max(examples, 1)

    def _compute(self, entry: _Entry, *, must_keep: bool = False) -> Tensor:
        start = time.perf_counter()
        examples = [self._prepared.examples[number] for number in entry.numbers]
        golds = as_branches([example.gold for example in examples])
        tree = self._prepared.tree(examples)
        hidden_NE = self._prefixes.hidden(examples[0].prefix_key, tree, golds).cpu()
        self._ledger.count("teacher_hidden_computed", len(examples))
        try:
            self._store.write(entry.key, hidden_NE, time.perf_counter() - start)
        except OSError as error:
            if must_keep:
                raise
            log.warning(
                f"{self._store.path(entry.key)} could not be kept ({error.strerror}); training goes on."
            )
        return hidden_NE


def open_teacher_hidden(
    recipe: Recipe,
    teacher: TreeModel | None,
    prefixes: PrefixCache | None,
    prepared: Prepared,
    *,
    is_longer_than_an_epoch: bool,
    ledger: Ledger,
    rank: int = 0,
    processes: int = 1,
) -> TeacherHidden | None:
    """The states of all gold completions, complete on disk (of several processes each fills its share), or None
    where the teacher is to run at every step: the method trains on other completions, the recipe does not want the
    cache, the run sees no example twice, or the disk cannot hold them, which is said.

    Raises:
        RunError: the cache folder holds hidden states of other inputs under this teacher's name.
    """
    if teacher is None or prefixes is None or not _is_wanted(recipe, is_longer_than_an_epoch):
        return None
    options = recipe.train
    questions = max(options.questions_per_tree, options.largest_tree)
    root = Path(options.teacher_hidden_folder or default_cache_folder() / "teacher-hidden")
    budget_bytes = options.teacher_hidden_mb * 2**20
    with ledger.phase(Phase.TEACHER):
        try:
            made_from = recipe.teacher.path if recipe.teacher else ""
            store = open_store(root, identity_of(teacher), made_from)
            hidden = TeacherHidden(teacher, prefixes, prepared, questions, store, ledger)
            needed_bytes = hidden.bytes(hidden.entries)
            if needed_bytes > budget_bytes:
                log.warning(
                    f"The teacher's hidden states need {needed_bytes / 2**20:,.0f} MB, more than "
                    f"train.teacher_hidden_mb = {options.teacher_hidden_mb}, so the teacher runs at every step."
                )
                return None
            hidden.make_room(budget_bytes)
            _announce(hidden, len(prepared.examples), needed_bytes, store.folder)
            hidden.fill(rank, processes)
        except OSError as error:
            log.warning(
                f"The teacher's hidden states cannot be kept in {root} ({error.strerror or error}), so the teacher "
                "runs at every step, which is slower and rounds slightly differently. Free some disk space, or set "
                "train.teacher_hidden_folder to another folder."
            )
            return None
    return hidden


def identity_of(teacher: TreeModel) -> dict[str, str]:
    """Everything but the data that decides the bits of the states. Layouts differ by rounding, so they are part of
    it; data, prompts and tokenizer are in each entry's key, as token ids."""
    device, parts = teacher.device, teacher.sharding.parts
    return {
        "format": FORMAT,
        "weights": model_fingerprint(teacher.causal_lm),
        "precision": teacher.precision,
        "layout": f"{teacher.layout}, attention {teacher.attention}"
        + (f", {parts} parts" if parts > 1 else ""),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def entry_key(tree: PromptTree, completions: Sequence[Completion]) -> str:
    """SHA-256 (hex) over the token ids of a tree and its completions, each run of tokens preceded by its length."""
    digest = hashlib.sha256()
    for tokens in (tree.prefix, *tree.questions, *completions):
        digest.update(np.array([len(tokens), *tokens], dtype="<i8").tobytes())
    return digest.hexdigest()


def _entries(prepared: Prepared, questions_per_tree: int) -> list[_Entry]:
    entries = []
    for numbers in prepared.numbers_by_prefix():
        for start in range(0, len(numbers), questions_per_tree):
            own = tuple(numbers[start : start + questions_per_tree])
            examples = [prepared.examples[number] for number in own]
            key = entry_key(prepared.tree(examples), [example.gold for example in examples])
            entries.append(_Entry(key, own))
    return entries


def _is_wanted(recipe: Recipe, is_longer_than_an_epoch: bool) -> bool:
    """Depends only on recipe and data, not on what is on disk: a resumed run must decide the same."""
    options = recipe.train
    if not source_class(recipe).is_fixed or options.teacher_hidden == "off":
        return False
    return options.teacher_hidden == "on" or is_longer_than_an_epoch


def _announce(hidden: TeacherHidden, examples: int, needed_bytes: int, folder: Path) -> None:
    missing = sum(len(entry.numbers) for entry in hidden.missing())
    what = f"the teacher's hidden states of {examples:,} queries ({needed_bytes / 2**20:,.0f} MB) in {folder}"
    if missing:
        log.info(f"Completing {what}: the teacher reads {missing:,} now and none during training.")
    else:
        log.info(f"Found {what}: the teacher need not run.")
