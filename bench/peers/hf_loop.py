"""The leanest padded training loop with `transformers`: no trainer, no shared prefix.

Rows of like length share a micro-batch, and the output layer is applied only where a completion token is predicted. Its
attention is the model's own (SDPA), its optimizer a fused AdamW on the weights as they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from peers.contender import Done, Models, Options, Row, Step, Stopwatch, padded


def make_step(models: Models, options: Options) -> Step:
    student = models.student.train()
    optimizer = adamw(student, options)

    def step(rows: Sequence[Row]) -> Done:
        watch, done = Stopwatch(models.device), Done(loss=0.0)
        target_tokens = sum(len(row.completion) for row in rows)
        by_length = sorted(rows, key=lambda row: -len(row.prompt) - len(row.completion))
        for start in range(0, len(by_length), options.micro_batch):
            batch = by_length[start : start + options.micro_batch]
            hidden_ND, targets_N = _hidden(models, batch, done)
            accumulate(models, hidden_ND, targets_N, target_tokens, done)
            done.rows += len(batch)
        update(student, optimizer, options)
        done.seconds = watch.seconds()
        return done

    return step


def _hidden(models: Models, batch: Sequence[Row], done: Done) -> tuple[Tensor, Tensor]:
    """Hidden states (N, D) that predict the completions' tokens, and these tokens (N)."""
    sequences = [[*row.prompt, *row.completion][:-1] for row in batch]
    ids_BT = padded(sequences, models.pad_token_id).to(models.device)
    mask_BT = padded([[1] * len(one) for one in sequences], 0).to(models.device)
    hidden_BTD = models.student.base_model(
        input_ids=ids_BT, attention_mask=mask_BT, use_cache=False
    ).last_hidden_state
    done.positions += ids_BT.numel()
    predicts = [[0] * (len(row.prompt) - 1) + [1] * len(row.completion) for row in batch]
    predicts_BT = padded(predicts, 0).to(models.device).bool()
    targets = [token for row in batch for token in row.completion]
    return hidden_BTD[predicts_BT], torch.tensor(targets, device=models.device)


def accumulate(models: Models, hidden_ND: Tensor, targets_N: Tensor, target_tokens: int, done: Done) -> None:
    """Backward through the cross entropy of these targets, as a share of the step's `target_tokens`."""
    logits_NV = models.student.get_output_embeddings()(hidden_ND).float()
    loss = torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum") / target_tokens
    loss.backward()
    done.trained_tokens += len(targets_N)
    done.loss = (done.loss or 0.0) + float(loss.detach())


def adamw(student: torch.nn.Module, options: Options) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        student.parameters(), lr=options.learning_rate, weight_decay=0.0, betas=(0.9, 0.999), fused=True
    )


def update(student: torch.nn.Module, optimizer: torch.optim.AdamW, options: Options) -> None:
    if options.max_norm is not None:
        torch.nn.utils.clip_grad_norm_(student.parameters(), options.max_norm)
    optimizer.step()
    optimizer.zero_grad()
