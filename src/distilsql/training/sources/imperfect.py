"""KID: gold completions masked, predicted in one pass without gradient, and rewritten (KID §3)."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distilsql.distill.divergences import entropy
from distilsql.distill.masking import (
    MaskStrategy,
    choose_mask_positions,
    mask_completion,
    masked_count,
    rewrite_completion,
    touches_the_mask_before,
)
from distilsql.errors import ModelError
from distilsql.inference.loading import Engines
from distilsql.models.token_choice import choose_tokens
from distilsql.models.tree import Completion, as_branches
from distilsql.models.tree_model import PromptState, student_hidden
from distilsql.runs.recipe import Recipe
from distilsql.training.ledger import Ledger
from distilsql.training.sources.source import CompletionSource
from distilsql.training.window_tree import Use, WindowTree


class Imperfect(CompletionSource):
    """ŷ of KID: gold with some tokens masked and rewritten by what the student predicts for them, in one pass.

    ⌈mask_share · |y|⌉ tokens are masked, |y| counting EOS; EOS itself is never masked: as the last token it is
    no model input, so a mask there would change nothing (ASSUMED; the paper does not say).
    """

    rewrites = True

    def __init__(self, recipe: Recipe, engines: Engines, ledger: Ledger) -> None:
        super().__init__(recipe, engines, ledger)
        self.mask_token_id = mask_token_id(engines.tokenizer, recipe.distill.mask_token)

    def lines_up_with_gold(self) -> bool:
        return self.recipe.distill.gold_context == "imperfect"

    @torch.no_grad()
    def rewrite(self, item: WindowTree, state: PromptState | None) -> list[Completion]:
        state = None if state is None else state.detached()
        golds = [torch.tensor(gold, dtype=torch.int64) for gold in item.golds]
        positions = self._mask_positions(item, golds, state)
        masked = [
            mask_completion(gold, where, self.mask_token_id)
            for gold, where in zip(golds, positions, strict=True)
        ]
        self.ledger.count("masked_tokens", sum(map(len, positions)))
        self.ledger.count(
            "adjacent_masked_tokens", sum(int(touches_the_mask_before(where).sum()) for where in positions)
        )
        return [tuple(row.tolist()) for row in self.fill(item, golds, masked, positions, state)]

    def fill(
        self,
        item: WindowTree,
        golds: list[Tensor],
        masked: list[Tensor],
        positions: list[Tensor],
        state: PromptState | None,
    ) -> list[Tensor]:
        """The masked completions with predictions in place of the masks."""
        options = self.recipe.distill
        seen = golds if options.rewriting_context == "gold" else masked
        for number in range(options.rewriting_rounds):
            predictions = self._predictions(item, seen, positions, state, number)
            seen = [
                rewrite_completion(gold, where, predicted)
                for gold, where, predicted in zip(golds, positions, predictions, strict=True)
            ]
        self._count_wrong(golds, positions, seen)
        return seen

    def _count_wrong(self, golds: list[Tensor], positions: list[Tensor], rewritten: list[Tensor]) -> None:
        wrong = adjacent = 0
        for gold, where, row in zip(golds, positions, rewritten, strict=True):
            is_wrong = gold[where] != row[where]
            wrong += int(is_wrong.sum())
            adjacent += int((is_wrong & touches_the_mask_before(where)).sum())
        self.ledger.count("wrongly_rewritten_tokens", wrong)
        self.ledger.count("wrongly_rewritten_adjacent_tokens", adjacent)

    def _mask_positions(
        self, item: WindowTree, golds: list[Tensor], state: PromptState | None
    ) -> list[Tensor]:
        strategy = MaskStrategy(self.recipe.distill.mask_strategy)
        by_error = self.recipe.distill.mask_share_from == "error_rate"
        looked = self._look_at_golds(item, state) if strategy.needs_entropy or by_error else None
        positions = []
        for row, gold in enumerate(golds):
            maskable = len(gold) - 1  # EOS is not
            count = masked_count(len(gold), self.recipe.distill.mask_share)
            if by_error and looked is not None:
                count = int((looked[row].predicted != gold).sum())
            chosen = choose_mask_positions(
                maskable,
                min(count, maskable),
                strategy,
                rng=item.rng(self.recipe.seed, Use.MASKING, row),
                student_entropy_T=looked[row].entropy[:-1] if looked and strategy.needs_entropy else None,
            )
            if strategy is MaskStrategy.APART:
                self.ledger.count("masks_out_of_reach", min(count, maskable) - len(chosen))
            positions.append(chosen)
        return positions

    def _look_at_golds(self, item: WindowTree, state: PromptState | None) -> list["_Look"]:
        """One pass of the student over the gold completions, without gradient."""
        student, vocabulary_size = self.engines.student, self.engines.vocabulary_size
        head = student.head()
        hidden_ND = student_hidden(student, item.tree, as_branches(item.golds), state)
        entropies, predicted = [], []
        for chunk in hidden_ND.split(self.recipe.train.loss_chunk_rows):
            logp_RV = head.log_probs(chunk, vocabulary_size)
            entropies.append(entropy(logp_RV))
            predicted.append(logp_RV.argmax(dim=-1))
        lengths = [len(gold) for gold in item.golds]
        return [
            _Look(*each)
            for each in zip(
                torch.cat(entropies).cpu().split(lengths),
                torch.cat(predicted).cpu().split(lengths),
                strict=True,
            )
        ]

    def _predictions(
        self,
        item: WindowTree,
        seen: list[Tensor],
        positions: list[Tensor],
        state: PromptState | None,
        number: int,
    ) -> list[Tensor]:
        """What the student predicts at each masked position, read from the position before it, in round `number`."""
        student, recipe = self.engines.student, self.recipe
        branches = as_branches([tuple(completion.tolist()) for completion in seen])
        hidden_ND = student_hidden(student, item.tree, branches, state)
        starts = np.cumsum([0, *(len(completion) for completion in seen[:-1])])
        rows = torch.cat([where + int(start) for where, start in zip(positions, starts, strict=True)])
        hidden_MD = hidden_ND[rows.to(hidden_ND.device)]
        is_sampled = recipe.distill.rewriting == "sampled"
        temperature = recipe.distill.rewriting_temperature if is_sampled else 0.0
        # Every round goes on in the stream of its row.
        uniform_M = np.concatenate(
            [
                item.rng(recipe.seed, Use.REWRITING, row).random((number + 1) * len(where))[
                    number * len(where) :
                ]
                for row, where in enumerate(positions)
            ]
        )
        head, predicted = student.head(), []
        for start in range(0, max(len(hidden_MD), 1), recipe.train.loss_chunk_rows):
            chunk = slice(start, start + recipe.train.loss_chunk_rows)
            logp_RV = head.log_probs(hidden_MD[chunk], self.engines.vocabulary_size)
            predicted.append(choose_tokens(logp_RV, temperature, uniform_M[chunk]))
        return list(torch.cat(predicted).cpu().split([len(where) for where in positions]))


class _Look(NamedTuple):
    """Of one gold completion, at each of its T positions: the student's entropy and its most probable token."""

    entropy: Tensor
    predicted: Tensor


class Masked(Imperfect):
    """kid-mask-only (KID Table 5): the mask tokens stay where they are."""

    def fill(
        self,
        item: WindowTree,
        golds: list[Tensor],
        masked: list[Tensor],
        positions: list[Tensor],
        state: PromptState | None,
    ) -> list[Tensor]:
        return masked


def mask_token_id(tokenizer: Any, token: str) -> int:
    """The id of KID's mask token. `auto` is the first of BOS, UNK, PAD, EOS that exists (the paper: “<s>”).

    Raises:
        ModelError: the named token is not one token of the vocabulary.
    """
    if token == "auto":
        candidates = (
            tokenizer.bos_token_id,
            tokenizer.unk_token_id,
            tokenizer.pad_token_id,
            tokenizer.eos_token_id,
        )
        return int(next(candidate for candidate in candidates if candidate is not None))
    if token not in tokenizer.get_vocab():
        raise ModelError(
            f"distill.mask_token = {token!r} is not a token of the student's vocabulary. "
            f"Choose one that is, such as {tokenizer.eos_token!r}."
        )
    return int(tokenizer.convert_tokens_to_ids(token))
