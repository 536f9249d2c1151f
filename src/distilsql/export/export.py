"""A folder for other programs: merged safetensors, GGUF files, an Ollama Modelfile for each, and a card that says how
they compare with the original."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilsql.data.benchmark import SqlBenchmark
from distilsql.errors import RunError
from distilsql.export.gguf_file import check_exportable, count_parameters, write_gguf
from distilsql.export.kinds import Quantization
from distilsql.export.llama_cpp import LlamaCpp, is_installed
from distilsql.export.pretokenizer import pretokenizer_name
from distilsql.export.proof import Original, Proof, prove
from distilsql.files import new_folder, write_json, write_text
from distilsql.inference.model import Model
from distilsql.progress import progress
from distilsql.threads import threads_for


@dataclass(frozen=True)
class Exported:
    """`proofs` are by quantization; `unproved` says why there are none."""

    folder: Path
    files: Mapping[str, Path]
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    unproved: str = ""


def export(
    model: Model,
    out: Path,
    *,
    name: str,
    gguf: Sequence[Quantization] = (),
    benchmark: SqlBenchmark | None = None,
    context_tokens: int | None = None,
) -> Exported:
    """Write the folder `out`, whole or not at all. With a `benchmark`, each GGUF file is asked all of its questions.

    Raises:
        RunError: `out` is there already, or cannot be written.
        ModelError: a family or tokenizer that llama.cpp does not know, or reads otherwise.
    """
    if out.exists():
        raise RunError(f"{out} is there already; name another folder, or remove it.")
    weights, tokenizer = model.decoder.model.causal_lm, model.decoder.tokenizer
    if gguf:  # first what can be refused
        check_exportable(weights.config, name)
        pretokenizer_name(json.loads(tokenizer.backend_tokenizer.to_str()), name)
    context = context_tokens or model.prompt.longest_tokens
    try:
        with new_folder(out) as folder:
            with progress("writing safetensors"), model.decoder.model.own_attention():
                weights.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
            files: dict[str, Path] = {}
            for quantization in gguf:
                with progress(f"writing {quantization}"):
                    path = folder / f"{name}-{quantization}.gguf"
                    write_gguf(weights, tokenizer, path, quantization, name=name)
                write_text(
                    folder / f"Modelfile-{quantization}", modelfile(path.name, tokenizer, model, context)
                )
                files[quantization] = path
            proofs, unproved = _proofs(model, files, benchmark, context)
            write_json(folder / "proof.json", {key: proof.as_json() for key, proof in proofs.items()})
            write_text(folder / "README.md", _card(model, name, files, proofs, unproved))
    except OSError as error:
        raise RunError(
            f"{out} cannot be written ({error.strerror}); make room, or name another folder."
        ) from error
    return Exported(out, {key: out / path.name for key, path in files.items()}, proofs, unproved)


def _proofs(
    model: Model, files: Mapping[str, Path], benchmark: SqlBenchmark | None, context: int
) -> tuple[dict[str, Proof], str]:
    if not files:
        return {}, "no GGUF file was written"
    if benchmark is None:
        return {}, "no test questions were given (--on)"
    if not is_installed():
        return {}, "the package xllamacpp is not installed (pip install 'distilsql[llamacpp]')"
    original = Original(model, benchmark)
    threads = threads_for(count_parameters(model.decoder.model.causal_lm), _cores())
    eos = int(model.decoder.tokenizer.eos_token_id)
    proofs = {}
    for quantization, path in files.items():
        with LlamaCpp(path, context_tokens=context, threads=threads, eos_token_id=eos) as file:
            proofs[quantization] = prove(original, file)
    return proofs, ""


def _cores() -> int:
    import joblib

    return int(joblib.cpu_count(only_physical_cores=True))


def modelfile(file_name: str, tokenizer: Any, model: Model, context_tokens: int) -> str:
    """For `ollama create`: prompts go in as they are, the answer is greedy, and the context is as long as a prompt may
    be (by default Ollama cuts what is longer than its own, silently)."""
    return (
        f"FROM ./{file_name}\n"
        'TEMPLATE """{{ .Prompt }}"""\n'
        f'PARAMETER stop "{tokenizer.eos_token}"\n'
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1\n"
        f"PARAMETER num_ctx {context_tokens}\n"
        f"PARAMETER num_predict {model.decoder.max_new_tokens}\n"
    )


def _card(
    model: Model, name: str, files: Mapping[str, Path], proofs: Mapping[str, Proof], unproved: str
) -> str:
    weights = model.decoder.model.causal_lm
    rows = ""
    if proofs:
        first = next(iter(proofs.values()))
        rows = (
            f"\n| file | size | right on {first.benchmark} | only the original | only the file | p | same completions "
            "| log-probabilities apart, mean / most |\n|---|---|---|---|---|---|---|---|\n"
            f"| original ({model.decoder.model.precision}) | | {100 * first.original_accuracy:.1f} % | | | | | |\n"
        )
        for quantization, proof in proofs.items():
            rows += (
                f"| {files[quantization].name} | {files[quantization].stat().st_size / 1e6:.1f} MB "
                f"| {100 * proof.exported_accuracy:.1f} % | {proof.only_original} | {proof.only_exported} "
                f"| {proof.p:.2g} | {proof.same_completions} of {proof.questions} "
                f"| {proof.mean_logp_difference:.2g} / {proof.largest_logp_difference:.2g} |\n"
            )
    said = rows or f"\nHow the files compare with the original was not measured: {unproved}.\n"
    modelfiles = "".join(f"\n    ollama create {name} -f Modelfile-{quantization}" for quantization in files)
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [distilsql, text-to-sql{", gguf" if files else ""}]
---

# {name}

{count_parameters(weights):,} parameters, exported by distilsql. `AutoModelForCausalLM.from_pretrained` opens this
folder; llama.cpp and Ollama read the `.gguf` files. It is asked with the prompt that it was trained on, as raw text
without a chat template (distilsql's docs/prompts.md).
{said}{chr(10) + "With Ollama:" + chr(10) + modelfiles + chr(10) if files else ""}"""
