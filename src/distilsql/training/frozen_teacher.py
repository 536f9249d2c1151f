"""The teacher in a training: its hidden states at the positions that are trained on."""

from collections.abc import Sequence
from contextlib import ExitStack

from torch import Tensor

from distilsql.distill.head import LogProbsOf
from distilsql.inference.loading import Engines
from distilsql.inference.prepare import Prepared
from distilsql.models.tree import Branch, PromptTree
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger, Phase
from distilsql.training.remote_teacher import RemoteTeacher
from distilsql.training.teacher_states.states import TeacherHidden, open_teacher_hidden
from distilsql.training.window_tree import WindowTree


class FrozenTeacher:
    """The teacher, run on each tree; or, where completions never change, run once and read from disk since (`kept`).

    One behind an API gives its top tokens, in rows that its `head` reads as other heads read hidden states.
    """

    def __init__(self, engines: Engines, ledger: Ledger, remote: RemoteTeacher | None = None) -> None:
        self._engines, self._ledger, self._remote = engines, ledger, remote
        self.kept: TeacherHidden | None = None

    @property
    def head(self) -> LogProbsOf:
        """What makes log-probabilities of `hidden`."""
        if self._remote is not None:
            return self._remote.head
        assert self._engines.teacher is not None
        return self._engines.teacher.head()

    def keep_states(
        self,
        recipe: Recipe,
        prepared: Prepared,
        *,
        is_longer_than_an_epoch: bool,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Make sure that the states of all gold completions are on disk, if recipe and data make that worthwhile."""
        with ExitStack() as stack:
            if self._engines.teacher_prefixes is not None:
                stack.enter_context(self._engines.teacher_prefixes.in_step())
            self.kept = open_teacher_hidden(
                recipe,
                self._engines.teacher,
                self._engines.teacher_prefixes,
                prepared.for_teacher or prepared,
                is_longer_than_an_epoch=is_longer_than_an_epoch,
                ledger=self._ledger,
                rank=process,
                processes=processes,
            )

    @property
    def seconds_beforehand(self) -> float:
        """Seconds that computing the kept states took, in whichever run."""
        return self.kept.seconds() if self.kept else 0.0

    def hidden(self, item: WindowTree, branches: Sequence[Branch]) -> Tensor | None:
        """Hidden states (N, E) that predict the branches of a tree; None without a teacher. Those of a teacher with
        another tokenizer predict its own tokens of them (Q, E)."""
        if self._remote is not None:
            with self._ledger.phase(Phase.TEACHER):
                self._ledger.count("teacher_tokens", sum(len(branch.tokens) for branch in branches))
                return self._remote.read(item.tree, branches).to(self._engines.student.device)
        cache = self._engines.teacher_prefixes
        if cache is None:
            return None
        with self._ledger.phase(Phase.TEACHER), cache.in_step():
            if self.kept is not None:
                return self.kept.of(item.numbers)
            tree, branches = self._as_it_reads(item, branches)
            self._ledger.count("teacher_tokens", sum(len(branch.tokens) for branch in branches))
            return cache.hidden(item.prefix_key, tree, branches)

    def _as_it_reads(
        self, item: WindowTree, branches: Sequence[Branch]
    ) -> tuple[PromptTree, Sequence[Branch]]:
        translator = self._engines.translator
        if translator is None or item.teacher_tree is None:
            return item.tree, branches
        own = [Branch(branch.question, translator.of(branch.tokens).teacher) for branch in branches]
        return item.teacher_tree, own
