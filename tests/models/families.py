"""Small random models of every family of the papers, and random trees to run through them."""

import random

import torch
from transformers import (
    AutoModelForCausalLM,
    CodeGenConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from distilsql.distill.tree import Branch, PromptTree

VOCABULARY = 97
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}

FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=128,
        **_TOKENS,
    ),
    "qwen2": Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        **_TOKENS,
    ),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=48, n_layer=3, n_head=4, n_positions=128, **_TOKENS),
    "opt": OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        ffn_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        word_embed_proj_dim=32,
        **_TOKENS,
    ),
    "codegen": CodeGenConfig(
        vocab_size=VOCABULARY,
        n_embd=48,
        n_layer=3,
        n_head=4,
        n_positions=128,
        n_ctx=128,
        rotary_dim=8,
        **_TOKENS,
    ),
}


def make_model(family: str, seed: int = 0, spread: float = 1.0):
    """A random model; `spread` > 1 makes its distributions less flat, so that argmax and EOS vary."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(FAMILIES[family]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(spread)
    return model


def tokens(rng: random.Random, low: int, high: int) -> tuple[int, ...]:
    return tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(low, high)))


def random_tree(seed: int, questions: int = 4) -> tuple[PromptTree, list[Branch]]:
    """A tree with questions of unequal length and 0 to 3 branches under each, some of a single token."""
    rng = random.Random(seed)
    tree = PromptTree(tokens(rng, 1, 12), tuple(tokens(rng, 1, 6) for _ in range(questions)))
    branches = [
        Branch(question, tokens(rng, 1, 8)) for question in range(questions) for _ in range(rng.randint(0, 3))
    ]
    return tree, branches or [Branch(0, tokens(rng, 1, 8))]
