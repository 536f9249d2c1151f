"""What each process of `test_tensor_parallel.py` runs: models of several families, cut within their layers, read other
trees in each process; their hidden states are compared with the whole model's, in float64.

    python -m torch.distributed.run --nproc-per-node N tests/reading_together.py OUT [processes on a machine]

Each process writes OUT.RANK: by family, the largest difference and the bytes that it keeps of the cut model.
"""

import copy
import json
import os
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen3Config,
)

from distilsql.models.load import freeze
from distilsql.models.tensor_parallel import TensorParallel, mesh_of_machine, prefix_cache_of
from distilsql.models.tree_model import TreeModel
from families import FAMILIES, GATED, OTHER_FAMILIES, random_tree

# Plans of every kind: heads split, or gathered again (Phi-3, OLMo 2), replicated norms (Qwen 3), fused keys (GPT-NeoX).
CUT: dict[str, PreTrainedConfig] = {
    "llama": FAMILIES["llama"],
    "qwen2": FAMILIES["qwen2"],
    "cohere": OTHER_FAMILIES["cohere"],
    "granite": OTHER_FAMILIES["granite"],
    "qwen3": Qwen3Config(head_dim=16, **GATED),
    "phi3": Phi3Config(**GATED),
    "olmo2": Olmo2Config(**GATED),
    "gpt-neox": GPTNeoXConfig(**{key: value for key, value in GATED.items() if key != "num_key_value_heads"}),
}


def read(config: PreTrainedConfig, rank: int) -> dict[str, float]:
    """Trees of this process's own, as many as its number and one more, in both layouts."""
    torch.manual_seed(0)
    whole = freeze(AutoModelForCausalLM.from_config(copy.deepcopy(config)).double())
    for parameter in whole.parameters():
        parameter.mul_(4)  # as they are made, layers add so little that a sum in another order gives the same
    parts = copy.deepcopy(whole)
    sharding = TensorParallel(parts, mesh_of_machine("cpu"), torch.device("cpu"), "a model")
    alone, together = TreeModel(whole), TreeModel(parts, sharding=sharding)
    cache = prefix_cache_of(together, 2**20)
    differences = []
    for layout in ("tree", "padded"):
        alone.layout = together.layout = layout  # type: ignore[assignment]
        with cache.in_step(), torch.no_grad():
            for number in range(1 + rank):
                tree, branches = random_tree(10 * rank + number)
                expected = alone.completion_hidden(tree, branches)
                found = cache.hidden((rank, number), tree, branches)
                differences.append((found - expected).abs().max())
    kept = [getattr(parameter, "to_local", lambda own=parameter: own)() for parameter in parts.parameters()]
    return {
        "difference": float(torch.stack(differences).max()),  # NaN, if one is
        "attention": together.attention,
        "kept": sum(tensor.untyped_storage().nbytes() for tensor in kept),
        "whole": sum(parameter.nbytes for parameter in whole.parameters()),
        "prefixes": len(cache),
    }


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.environ["LOCAL_WORLD_SIZE"] = sys.argv[2]
    rank = Accelerator(cpu=True).process_index
    Path(f"{sys.argv[1]}.{rank}").write_text(json.dumps({name: read(CUT[name], rank) for name in CUT}))
