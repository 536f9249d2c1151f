"""Load, cut and save models: any `transformers` causal LM folder, hub name or embedded model, with or without an
adapter."""

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.hooks import remove_hook_from_module
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from distilsql.errors import ModelError
from distilsql.models.embedded import resolve

Precision = Literal["bfloat16", "float32"]
Quantization = Literal["none", "8bit", "4bit"]
DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}

# Two tokenizers of equal vocabulary may still split text differently; these strings show it.
_PROBES = (
    "SELECT count(*) FROM singer WHERE age > 20",
    "table t , columns = [ t.a ( text ) ]\n",
    "  naïve 1984-02",
)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The model's own tokenizer.

    Raises:
        ModelError: the folder or hub name has none, or it has no EOS token to end a query with.
    """
    folder = resolve(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"No tokenizer could be loaded from {path}: {error}. Give a folder that save_pretrained wrote "
            "(config.json, model.safetensors and tokenizer.json), or a hub name."
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"The tokenizer of {path} has no EOS token to end a query with. Set one with "
            "tokenizer.add_special_tokens({'eos_token': '…'}) and save it with the model."
        )
    return tokenizer


def load_model(
    path: str | Path,
    precision: Precision,
    *,
    adapter: str | Path | None = None,
    placement: "Placement | None" = None,
) -> nn.Module:
    """A causal LM in the given precision; with `adapter`, a LoRA adapter merged into it.

    Without `placement` the model is whole, on the CPU, and may be moved.

    Raises:
        ModelError: nothing loadable at the path, or not as `placement` asks, or an adapter of another model.
    """
    folder = resolve(path)
    transformers_logging.disable_progress_bar()
    options = {} if placement is None else placement.loading_options(precision)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[precision], **options)
        if adapter is not None:
            model = _with_adapter(model, str(path), str(adapter)).merge_and_unload()
    except ModelError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"No model could be loaded from {path}{f' with adapter {adapter}' if adapter else ''}: {error}. "
            "Give a folder that save_pretrained wrote, a hub name, or the model/ folder of a run."
        ) from error
    except (ImportError, RuntimeError) as error:
        if placement is None:
            raise
        raise ModelError(
            f"{path} could not be loaded with {placement}: {error}. Use more or other devices, or load it whole "
            "(no teacher.device_map, teacher.quantization = none)."
        ) from error
    if placement is not None:
        join_ends(model, str(path))
    return model


def _with_adapter(model: Any, path: str, adapter: str) -> Any:
    """The PEFT model. Raises ModelError where LoRA weights of the adapter find no layer, or layers no weights."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # they are an error, below
        adapted = PeftModel.from_pretrained(model, adapter)
    both = (
        get_peft_model_state_dict(adapted, save_embedding_layers=False),
        load_peft_weights(adapter, device="cpu"),
    )
    wanted, found = ({key for key in weights if "lora_" in key} for weights in both)
    apart = sorted(wanted ^ found)
    if apart:
        raise ModelError(
            f"The adapter {adapter} does not fit {path}: {len(apart)} of their weights do not match, first "
            f"{apart[0]}. Give the model that it was trained on."
        )
    return adapted


def freeze(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False)


def shared_vocabulary_size(
    student: Any, teacher: Any | None, tokenizer: PreTrainedTokenizerBase, teacher_path: str | None = None
) -> int:
    """How many leading vocabulary entries both models share: the tokenizer's length.

    Models pad their output layers to different sizes (Qwen: 151,936 and 152,064); logits are cut, never filled.

    Raises:
        ModelError: a model has fewer outputs than the tokenizer has tokens, or the tokenizers differ.
    """
    if teacher_path is not None:  # first: the wrong tokenizer explains more than a wrong number of outputs
        check_same_tokenizer(tokenizer, load_teacher_tokenizer(teacher_path), teacher_path)
    size = len(tokenizer)
    models = [("student", student)] + ([("teacher", teacher)] if teacher is not None else [])
    for role, model in models:
        check_outputs(role, model, size)
    return size


def check_outputs(role: str, model: Any, vocabulary_size: int) -> None:
    """Raises ModelError where a model has fewer outputs than its tokenizer has tokens."""
    outputs = model.get_output_embeddings().weight.shape[0]
    if outputs < vocabulary_size:
        raise ModelError(
            f"The {role} has {outputs:,} output tokens but its tokenizer has {vocabulary_size:,}: they do not belong "
            "together. Use the tokenizer the model was trained with, or model.resize_token_embeddings."
        )


def check_positions(model: Any, longest_tokens: int, path: str) -> str:
    """The warning about a model that may read more tokens than it has seen positions; '' if it cannot.

    Rotary positions go on beyond those; a table of positions ends.

    Raises:
        ModelError: the model has no positions for `longest_tokens` tokens.
    """
    known = getattr(model.config, "max_position_embeddings", None)
    if known is None or longest_tokens <= known:
        return ""
    found = f"{path} knows {known:,} positions, and prompt and completion may take {longest_tokens:,}"
    cure = "lower prompt.max_prompt_tokens or prompt.max_completion_tokens"
    if not getattr(model.config, "rope_parameters", None):
        raise ModelError(f"{found}: {cure}.")
    return f"{found}: beyond what it was trained on it may write nonsense. If prompts are that long, {cure}."


def load_teacher_tokenizer(path: str) -> PreTrainedTokenizerBase:
    folder = resolve(path)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The teacher {path} comes without a tokenizer, so it cannot be checked whether it shares the student's: "
            f"{error}. Save the teacher's tokenizer into its folder."
        ) from error


def check_same_tokenizer(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, teacher_path: str
) -> None:
    """Refuse a teacher that reads other tokens than the student writes, or ends and begins a text with other ones.

    Completions end with the student's EOS and prompts begin as the student's tokenizer has it; what a model was trained
    with is what its own tokenizer says, since training here saves the tokenizer with the model.

    Raises:
        ModelError: vocabularies, the splitting of text, EOS or the token put before a text differ.
    """
    student_vocabulary, teacher_vocabulary = student.get_vocab(), teacher.get_vocab()
    if student_vocabulary != teacher_vocabulary:
        differing = len(set(student_vocabulary.items()) ^ set(teacher_vocabulary.items()))
        raise ModelError(
            f"Student has {len(student_vocabulary):,} tokens, teacher {teacher_path} {len(teacher_vocabulary):,}, "
            f"and {differing:,} entries differ: their next-token distributions cannot be compared. Use a student "
            "and teacher of one model family, bridge the vocabularies (teacher.bridge = hybrid or uld), or distil by "
            "training sft on the teacher's generated queries."
        )
    for probe in _PROBES:
        if (
            student(probe, add_special_tokens=False).input_ids
            != teacher(probe, add_special_tokens=False).input_ids
        ):
            raise ModelError(
                f"Student and teacher {teacher_path} have the same vocabulary but split text differently "
                f"(for example {probe!r}). Use a student and teacher that share one tokenizer, or "
                "teacher.bridge = hybrid."
            )
    if student.eos_token_id != teacher.eos_token_id:
        raise ModelError(
            f"The student's EOS token is {student.eos_token}, that of the teacher {teacher_path} is "
            f"{teacher.eos_token}: the student would be taught not to stop at the end of a completion. Use a teacher "
            "with the student's EOS token (base with base, Instruct with Instruct), or fine-tune it by sft here; if it "
            f"does end with {student.eos_token}, set that as eos_token in its tokenizer_config.json."
        )
    first = [tokenizer.convert_ids_to_tokens(tokenizer("a").input_ids)[0] for tokenizer in (student, teacher)]
    if first[0] != first[1]:
        raise ModelError(
            f"The student's tokenizer begins the text “a” with {first[0]}, that of the teacher {teacher_path} with "
            f"{first[1]}: one of them adds a BOS token and the other does not, so the teacher would read prompts of an "
            "unfamiliar form. Set add_bos_token to the same value in both tokenizer_config.json files, as the teacher "
            "was trained."
        )


# ---- a teacher on several devices, or in fewer bits ------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """How `transformers` is asked to load a model that is only read: where its parts lie, and in how many bits.

    `device_map` is passed on as it is (`auto`, `balanced`, `cpu`, …); without one a quantised model lies on `device`.
    """

    device: torch.device
    device_map: str | None = None
    quantization: Quantization = "none"

    def __str__(self) -> str:
        return f"device_map = {self.device_map or self.device}, quantization = {self.quantization}"

    def loading_options(self, precision: Precision) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`. Raises ModelError where bitsandbytes is needed and missing."""
        options: dict[str, Any] = {"device_map": self.device_map or {"": self.device}}
        if self.quantization == "none":
            return options
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModelError(
                f"teacher.quantization = {self.quantization} needs the package bitsandbytes, which is not "
                "installed: `pip install bitsandbytes`, or set teacher.quantization to none."
            )
        bits: dict[str, Any] = (
            {"load_in_8bit": True}
            if self.quantization == "8bit"
            else {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_compute_dtype": DTYPES[precision],
            }
        )
        return options | {"quantization_config": BitsAndBytesConfig(**bits)}


def join_ends(model: Any, path: str) -> None:
    """Hidden states come out on the device that tokens go in on, and the output layer lies there too.

    A model spread by `device_map` returns them on its last device, while all that is done with them here is done on
    its first.

    Raises:
        ModelError: input or output layer are not held by any device (offloaded to disk).
    """
    head, device = model.get_output_embeddings(), model.get_input_embeddings().weight.device
    if "meta" in (device.type, head.weight.device.type):
        raise ModelError(
            f"{path} does not fit in memory: device_map put its input or output layer on disk. Use "
            "teacher.quantization, or more or larger devices."
        )
    remove_hook_from_module(head)  # accelerate's would send what goes in on to another device
    if head.weight.device != device:
        head.to(device)

    def bring_back(module: nn.Module, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.to(device)
        return output

    model.base_model.register_forward_hook(bring_back)


def is_spread(model: Any) -> bool:
    """Whether a device_map put the parts of a model on more than one device."""
    return len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1


# ---- a smaller student from a model's own layers -------------------------------------------------------------


def evenly_spaced(kept: int, total: int) -> list[int]:
    """`kept` of `total` layer numbers, the first and the last among them, as evenly spaced as they can be."""
    if not 1 <= kept <= total:
        raise ModelError(
            f"student.keep_layers = {kept}, but the model has {total} layers: choose 1 to {total}."
        )
    if kept == 1:
        return [0]
    return [round(step * (total - 1) / (kept - 1)) for step in range(kept)]


def keep_layers(model: Any, layers: int | Sequence[int]) -> list[int]:
    """Drop all other decoder layers in place, so that the model saves as an ordinary smaller one.

    `layers` is a count (evenly spaced, first and last kept) or the layer numbers themselves. Returns them.

    Raises:
        ModelError: a layer that does not exist, or a model whose layers cannot be found.
    """
    total = model.config.num_hidden_layers
    chosen = evenly_spaced(layers, total) if isinstance(layers, int) else list(layers)
    if not chosen or chosen != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] >= total:
        raise ModelError(
            f"student.keep_layers = {chosen}: give increasing layer numbers between 0 and {total - 1}, or a count."
        )
    parent, name, stack = layer_stack(model, total)
    setattr(parent, name, nn.ModuleList([stack[layer] for layer in chosen]))
    for new_index, layer in enumerate(getattr(parent, name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = new_index
    model.config.num_hidden_layers = len(chosen)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[layer] for layer in chosen]
    return chosen


def decoder_layers(causal_lm: Any) -> nn.ModuleList:
    """A model's decoder layers, in order. Raises ModelError if they are not kept in one list."""
    return layer_stack(causal_lm, causal_lm.config.num_hidden_layers)[2]


def layer_stack(model: nn.Module, total: int) -> tuple[nn.Module, str, nn.ModuleList]:
    """The list of a model's decoder layers, the module that holds it, and its name there.

    Raises:
        ModelError: there is none of that length.
    """
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == total:
                return parent, name, child
    raise ModelError(
        f"{type(model).__name__} does not keep its {total} layers in one list, so they can neither be chosen "
        "(student.keep_layers) nor be spread over processes. Use a model of another family."
    )


# ---- LoRA ----------------------------------------------------------------------------------------------------


def add_lora(
    model: Any, *, rank: int, scale: float, targets: str | Sequence[str] = "all-linear"
) -> nn.Module:
    """Wrap a model with a fresh LoRA adapter (PEFT), dropout off. `scale` is LoRA's alpha."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=scale,  # type: ignore[arg-type]  # a float works and is what papers give
        lora_dropout=0.0,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    merge_adapter: bool,
    is_gathered: bool = False,
) -> None:
    """Save as an ordinary `transformers` folder: merged weights, or the adapter alone. `is_gathered`: the model is
    sharded, and its weights lie whole in this process for now."""
    if merge_adapter and hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    # The state dict of a sharded model is of this process's part, whatever lies in memory.
    model.save_pretrained(folder, **({"state_dict": weights_of(model)} if is_gathered else {}))
    tokenizer.save_pretrained(folder)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Everything that `save_pretrained` writes of a model whose weights are whole, by name: parameters, each once
    where layers share them, and buffers that are saved."""
    saved: dict[str, Tensor] = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for owner, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                saved[f"{owner}.{name}" if owner else name] = buffer
    return saved
