"""Programs that train on the same examples as ours: one file each, behind one interface.

    from peers import make_step
    from peers.contender import Models, Options, Row

    step = make_step("trl-sft", Models(student, teacher, tokenizer), Options(micro_batch=4))
    done = step([Row(prompt, completion, prefix_tokens), ...])

`make_step` takes models in memory, on whatever device and in whatever precision they are. It returns a callable
that runs one whole training step on the rows it is given: forward, backward, clipping, optimizer. What the step took
and what it was trained on is counted in the step itself (`contender.Done`). Rows are token ids; a library that asks for
a tokenizer is given a stand-in (`stand_in.py`). A file imports its library only when its contender is made.
"""

from importlib import import_module

from peers.contender import Models, Options, Step

# Name in results and tables, and the function that makes its step.
CONTENDERS = {
    "hf-loop": ("hf_loop", "make_step", "transformers, plain loop"),
    "prefix-grouper": ("grouped_prefixes", "make_step", "prefix-grouper"),
    "trl-sft": ("trl_sft", "padded", "TRL SFTTrainer"),
    "trl-sft-float32": ("trl_sft", "padded", "TRL SFTTrainer, float32 weights"),
    "trl-sft-padding-free": ("trl_sft", "padding_free", "TRL SFTTrainer, padding-free"),
    "trl-sft-packed": ("trl_sft", "packed", "TRL SFTTrainer, packed"),
    "trl-gkd": ("trl_gkd", "make_step", "TRL GKDTrainer"),
    "trl-distillation": ("trl_distillation", "make_step", "TRL DistillationTrainer"),
}

# Our methods, on trees or padded: `kid`, `kid-padded`.
PADDED = "-padded"


def is_peer(name: str) -> bool:
    """Whether `name` is somebody else's program. Any other name is a method of ours."""
    return name in CONTENDERS


def title(name: str) -> str:
    """What tables call it."""
    if is_peer(name):
        return CONTENDERS[name][2]
    return f"{name.removesuffix(PADDED)}, padded layout" if name.endswith(PADDED) else name


def make_step(name: str, models: Models, options: Options) -> Step:
    """The step of a contender: a name of CONTENDERS, or one of our methods, `-padded` for our reference layout.

    Raises:
        ImportError: the contender's library is not installed.
    """
    if not is_peer(name):
        from peers import ours

        layout = "padded" if name.endswith(PADDED) else "tree"
        return ours.make_step(models, options, method=name.removesuffix(PADDED), layout=layout)
    module, function, _ = CONTENDERS[name]
    step: Step = getattr(import_module(f"peers.{module}"), function)(models, options)
    return step
