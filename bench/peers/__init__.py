"""Programs that train on the same examples as ours: one file each, behind one interface.

    from peers import make_step
    from peers.contender import Models, Options, Row

    step = make_step("trl-sft", Models(student, teacher, tokenizer), Options(micro_batch=4))
    done = step([Row(prompt, completion, prefix_tokens), ...])

`make_step` takes models in memory, on whatever device and in whatever precision they are. It returns a callable
that runs one whole training step on the rows it is given: forward, backward, clipping, optimizer. What the step took
and what it was trained on is counted in the step itself (`contender.Done`). Rows are token ids; a library that asks for
a tokenizer is given a stand-in (`stand_in.py`). A file imports its library only when its contender is made.
Importing this package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from peers.contender import Models, Options, Step


class Peer(NamedTuple):
    """Where a contender's step is made, what tables call it, and whether it needs a teacher."""

    module: str
    function: str
    title: str
    distils: bool = False


PEERS = {
    "hf-loop": Peer("hf_loop", "make_step", "plain `transformers` loop"),
    "prefix-grouper": Peer("grouped_prefixes", "make_step", "prefix-grouper"),
    "trl-sft": Peer("trl_sft", "padded", "TRL SFTTrainer"),
    "trl-sft-float32": Peer("trl_sft", "padded", "TRL SFTTrainer, float32 weights"),
    "trl-sft-padding-free": Peer("trl_sft", "padding_free", "TRL SFTTrainer, padding-free"),
    "trl-sft-packed": Peer("trl_sft", "packed", "TRL SFTTrainer, packed"),
    "trl-gkd": Peer("trl_gkd", "make_step", "TRL GKDTrainer", distils=True),
    "trl-distillation": Peer("trl_distillation", "make_step", "TRL DistillationTrainer", distils=True),
    "trl-distillation-plain-sampler": Peer(
        "trl_distillation", "plainly_sampled", "TRL DistillationTrainer, its sampler replaced", distils=True
    ),
}

# After the name of one of our methods: on our padded layout, the reference of our trees.
PADDED = "-padded"


def distils(name: str) -> bool:
    """Whether the contender reads a teacher."""
    if name in PEERS:
        return PEERS[name].distils
    from distilsql.distill.methods import METHODS

    return METHODS[name.removesuffix(PADDED)].needs_teacher


def make_step(name: str, models: "Models", options: "Options") -> "Step":
    """The step of a contender: a name of PEERS, or one of our methods, with `-padded` on our padded layout.

    Raises:
        ImportError: the contender's library is not installed.
    """
    if name not in PEERS:
        from peers import ours

        method = name.removesuffix(PADDED)
        return ours.make_step(models, options, method=method, layout="tree" if method == name else "padded")
    peer = PEERS[name]
    step: Step = getattr(import_module(f"peers.{peer.module}"), peer.function)(models, options)
    return step
