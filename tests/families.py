"""Small random models of every family of the papers and of some others, and random trees to run through them."""

import copy
import random

import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForCausalLM,
    CodeGenConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    GraniteConfig,
    HyperCLOVAXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from distilsql.distill.divergences import DIVERGENCES
from distilsql.distill.head import Head
from distilsql.distill.loss import Distillation, Likelihood, completion_loss
from distilsql.models.generate import generate_trees
from distilsql.models.load import add_lora
from distilsql.models.packed_linear import PackedWeight
from distilsql.models.tree import Branch, PromptTree, targets
from distilsql.models.tree_model import TreeModel

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


GATED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
} | _TOKENS
# Families that make logits of their output layer by more than a product, or attend by more than a softmax.
OTHER_FAMILIES: dict[str, PreTrainedConfig] = {
    "granite": GraniteConfig(logits_scaling=8.0, attention_multiplier=0.3, residual_multiplier=0.2, **GATED),
    "cohere": CohereConfig(logit_scale=0.0625, **GATED),
    "gemma2": Gemma2Config(
        final_logit_softcapping=2.0,
        attn_logit_softcapping=2.0,
        query_pre_attn_scalar=1,
        head_dim=12,
        **GATED,
    ),
    "gpt-oss": GptOssConfig(num_local_experts=2, num_experts_per_tok=1, head_dim=12, **GATED),
    "mistral": MistralConfig(sliding_window=8, **GATED),
    # Divides by nothing and multiplies by what Granite divides by.
    "hyperclovax": HyperCLOVAXConfig(logits_scaling=3.0, **GATED),
}


def make_model(family: str, seed: int = 0, spread: float = 1.0, head_size: int | None = None):
    """A random model; `spread` > 1 makes its distributions less flat, so that argmax and EOS vary."""
    torch.manual_seed(seed)
    config = copy.deepcopy((FAMILIES | OTHER_FAMILIES)[family])
    if head_size:
        config.hidden_size = head_size * config.num_attention_heads
        if getattr(config, "head_dim", None):
            config.head_dim = head_size
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(spread)
    return model


def with_lora(model, spread: float = 1.0):
    """The model under an adapter that changes what it computes: a fresh one changes nothing."""
    model = add_lora(model, rank=2, scale=4.0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=spread)
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


def wide_tree(seed: int, questions: int = 12) -> tuple[PromptTree, list[Branch]]:
    """A tree of several blocks."""
    rng = random.Random(seed)
    tree = PromptTree(tokens(rng, 100, 400), tuple(tokens(rng, 1, 30) for _ in range(questions)))
    return tree, [Branch(question, tokens(rng, 1, 20)) for question in range(questions) for _ in range(2)]


def loss_and_gradients(model, hidden_ND, branches):
    """A loss with both terms, and the gradient of every trained parameter."""
    generator = torch.Generator().manual_seed(1)

    def fixed(draw, *shape):
        return draw(*shape, generator=generator).to(hidden_ND.device)

    weights = fixed(torch.rand, len(hidden_ND))
    teacher = Distillation(
        fixed(torch.randn, len(hidden_ND), 8),
        Head(fixed(torch.randn, VOCABULARY, 8)),
        DIVERGENCES["reverse-kl"],
        weights,
    )
    parts = completion_loss(
        hidden_ND,
        model.head(),
        vocabulary_size=VOCABULARY,
        distillation=teacher,
        likelihood=Likelihood(targets(branches).to(hidden_ND.device), weights),
        chunk_rows=5,
    )
    model.model.zero_grad()
    parts.total.backward()
    gradients = {name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None}
    return parts.total.detach(), gradients


def assert_kernels_as_padded(model: TreeModel, tree: PromptTree, branches: list[Branch]) -> None:
    """Loss and every gradient of a tree, in one pass and in two, are those of padded rows, to the rounding of a GPU's
    kernels in float32."""
    padded = TreeModel(model.model, layout="padded")
    expected, reference = loss_and_gradients(padded, padded.completion_hidden(tree, branches), branches)
    for hidden in (
        model.completion_hidden(tree, branches),
        model.run_branches(model.run_prompts(tree), branches),
    ):
        loss, gradients = loss_and_gradients(model, hidden, branches)
        torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
        assert gradients.keys() == reference.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, reference[name], atol=2e-4, rtol=1e-2)


def assert_gradients_are_finite(model: TreeModel, trees: int) -> None:
    """On trees of many lengths, from prompts that were run before."""
    for seed in range(trees):
        tree, branches = wide_tree(seed, questions=2 + seed)
        hidden = model.run_branches(model.run_prompts(tree), branches)
        _, gradients = loss_and_gradients(model, hidden, branches)
        assert all(gradient.isfinite().all() for gradient in gradients.values())


def generate(model, tree, options, *, streams=None, prefix=None):
    """Completions of one tree."""
    own = None if streams is None else [streams]
    return generate_trees(model, [tree], options, streams=own, prefixes=[prefix])[0]


class PlainWeight(PackedWeight):
    """Not packed: what is left of a decoder that packs its weights is its own arithmetic."""

    def __call__(self, input_XI):
        return F.linear(input_XI, self._packed, self._layer.bias)

    def _pack(self, weight_OI):
        return weight_OI
