"""Write a model's answers to a benchmark: predictions/<benchmark>.jsonl, one line per example."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from distilsql.data.benchmark import Benchmark, SqlBenchmark
from distilsql.data.example import Example, Instruction
from distilsql.data.load import load_benchmark
from distilsql.databases.url import Place
from distilsql.errors import DatabaseUnavailable, RunError
from distilsql.files import lines_of, write_text
from distilsql.inference.candidates import GREEDY, Choosing, choose_all
from distilsql.inference.decoder import DecodedAnswer, Decoder, answer_all
from distilsql.inference.loading import load_asked
from distilsql.inference.model import Model
from distilsql.inference.prepare import prepare
from distilsql.interrupt import say_kept
from distilsql.metrics.predictions import ANSWER_FIELDS
from distilsql.models.embedded import resolve
from distilsql.models.precision import AskedPrecision, choose_precision
from distilsql.progress import progress
from distilsql.runs.folder import RunFolder, existing_run
from distilsql.runs.recipe import Recipe, load_recipe
from distilsql.runs.sections import PromptSettings

log = logging.getLogger(__name__)


def load_student(
    run: RunFolder | Path | str,
    *,
    beams: int = 1,
    precision: AskedPrecision | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Model:
    """Load the finished student of a run, with the prompt settings and the precision of its training.

    `precision` asks for another: `auto` is the run's, but float32 where this machine would compute in bfloat16 slowly.
    By default the run's precision is kept, with a warning, so that measurements are of the same model.

    Raises:
        RunError: this is not a run folder, or the run has no model yet.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(Path(run))
    recipe = recipe_of(run)
    if not run.model.exists():
        raise RunError(f"{run.path} has no finished model: run `distilsql train` again to finish it.")
    path, adapter = str(run.model), None
    if (run.model / "adapter_config.json").exists():
        path, adapter = recipe.student.path, str(run.model)
    return load_any(
        path,
        recipe.prompt,
        beams=beams,
        precision=_asked_precision(precision, recipe, str(run.model)),
        adapter=adapter,
        temperature=temperature,
        seed=seed,
    )


def load_any(
    path: str,
    prompt: PromptSettings,
    *,
    beams: int = 1,
    precision: AskedPrecision = "auto",
    adapter: str | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Model:
    """Any causal LM folder or hub name, asked with the given prompt settings: greedily unless told otherwise.

    Raises:
        RunError: both beams and a temperature are given; beam search cannot sample.
        ModelError: nothing loadable at the path, a model whose distribution would be another one here, or one that
            has no positions for prompt and completion.
    """
    if beams > 1 and temperature:
        raise RunError(
            f"Beam search cannot sample: give either {beams} beams or temperature {temperature:g}."
        )
    tree_model, tokenizer, size = load_asked(
        path, precision, longest_tokens=prompt.longest_tokens, adapter=adapter
    )
    decoder = Decoder(
        tree_model,
        tokenizer,
        size,
        prompt.max_completion_tokens,
        beams=beams,
        temperature=temperature,
        seed=seed,
    )
    return Model(decoder, prompt, origin=f"{Path(path).absolute()} {adapter or ''} {tree_model.precision}")


def load_named(run: str) -> tuple[Model, Recipe]:
    """The student of the run folder `run`, or the embedded model of that name, as people ask it: never in a precision
    that is slow here; with the recipe that trained it.

    Raises:
        RunError: this is no run folder, or the run has no model yet.
        ModelError: no embedded model is called so.
    """
    if not run.startswith("demo:"):
        folder = RunFolder(Path(run))
        return load_student(folder, precision="auto"), recipe_of(folder)
    recipe = load_recipe(Path(resolve(run)) / "recipe.toml")
    return load_any(run, recipe.prompt, precision=recipe.train.precision), recipe


def _asked_precision(asked: AskedPrecision | None, recipe: Recipe, path: str) -> AskedPrecision:
    """What a run's student is asked in; see `load_student`."""
    trained_in = recipe.train.precision
    if asked in ("bfloat16", "float32"):
        return asked
    if trained_in != "bfloat16":
        return trained_in
    choice = choose_precision(path, Accelerator().device)
    if choice.precision == trained_in:
        return trained_in
    if asked == "auto":
        log.info(str(choice))
        return choice.precision
    log.warning(
        f"This run computes in bfloat16, which is slow here: {choice.reason}. "
        "--precision float32 is faster but rounds differently."
    )
    return trained_in


def recipe_of(run: RunFolder) -> Recipe:
    return load_recipe(existing_run(run.path).recipe)


def benchmark_for(recipe: Recipe, spec: str, root: Path | None, database: Place | None) -> Benchmark:
    """A benchmark to be asked, looked for where the recipe's own data is unless told otherwise. Own questions need no
    SQL."""
    return load_benchmark(
        spec,
        root=root or recipe.data.root_path,
        database=database or recipe.data.database_place,
        missing_databases="skip",
        needs_gold=False,
    )


def predict(
    model: Model, benchmark: Benchmark, out: Path | str | None = None, *, choosing: Choosing = GREEDY
) -> list[str]:
    """Answer every example, and write the answers to `out` if given. An interrupted prediction resumes from its
    `.unfinished` file, except for answers to other questions or by another model or decoding.

    With `choosing`, each answer is chosen among several by what they return (see `inference.candidates`).

    Returns the answers (SQL, or responses) in the benchmark's order.

    Raises:
        RunError: `choosing` is for SQL and this benchmark has none, or the model does not decode greedily.
        DatabaseUnavailable: a database that candidates are run on cannot be read.
    """
    if not choosing.is_greedy:
        _check_choosing(model, benchmark)
    if out is None:
        texts = {
            example.example_id: answer.text
            for example, answer in _answers(model, benchmark, choosing=choosing)
        }
        return [texts[example.example_id] for example in benchmark.examples]
    out = Path(out)
    field = ANSWER_FIELDS[benchmark.task]
    unfinished = out.with_name(out.name + ".unfinished")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    header = {"answers_of": model.fingerprint() + ("" if choosing.is_greedy else f" {choosing}")}
    known, around = _read(unfinished, benchmark, header)
    todo = benchmark.without(known)
    if todo.examples:
        count = len(benchmark.examples)
        with unfinished.open("a" if known else "w", encoding="utf-8") as file:
            if not known:
                file.write(json.dumps(header) + "\n")
            try:
                for example, answer in _answers(model, todo, done=len(known), choosing=choosing):
                    example_id = example.example_id
                    known[example_id] = answer.text
                    if answer.stripped:
                        around[example_id] = {"stripped": list(answer.stripped), "written": answer.written}
                    file.write(_line(example, field, answer.text, around.get(example_id)))
                    file.flush()
                    say_kept(_kept(known, count, unfinished))
            except DatabaseUnavailable as error:  # of candidates
                raise DatabaseUnavailable(
                    f"{error} {_kept(known, count, unfinished)} Then the same command goes on."
                ) from error
    write_predictions(known, benchmark, out, around)
    unfinished.unlink(missing_ok=True)
    return [known[example.example_id] for example in benchmark.examples]


def _kept(known: Mapping[str, str], count: int, unfinished: Path) -> str:
    return f"{len(known):,} of {count:,} answers are kept in {unfinished}."


def _check_choosing(model: Model, benchmark: Benchmark) -> None:
    if benchmark.task != "sql":
        raise RunError(
            f"Candidates are chosen by what they return, and {benchmark.name} is answered in words: leave out "
            "--candidates and --retry."
        )
    if model.decoder.beams > 1 or model.decoder.temperature:
        raise RunError(
            "Candidates are the greedy query and samples beside it: leave out --beams and --temperature, or "
            "--candidates and --retry."
        )


def _answers(
    model: Model, benchmark: Benchmark, *, done: int = 0, choosing: Choosing = GREEDY
) -> Iterator[tuple[Example | Instruction, DecodedAnswer]]:
    """The answers as they come; progress counts those that were `done` before."""
    count = done + len(benchmark.examples)
    if not choosing.is_greedy and isinstance(benchmark, SqlBenchmark):
        with progress(f"answering {benchmark.name}", count, done=done) as advance:
            for example, chosen in choose_all(model, benchmark, choosing):
                yield example, DecodedAnswer(chosen.answer.sql)
                advance()
        return
    prepared = prepare(benchmark, model.decoder.tokenizer, model.prompt, training=False)
    with progress(f"answering {benchmark.name}", count, done=done) as advance:
        for answered, answer in answer_all(model.decoder, prepared):
            yield answered.example, answer
            advance()


def write_predictions(
    answers: Mapping[str, str],
    benchmark: Benchmark,
    out: Path,
    around: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """One line for each example of the benchmark. `answers` are by example id, and so is `around`: what more a line
    says of a query that stood in a fence, say (what it was stripped of, and the whole text)."""
    field, around = ANSWER_FIELDS[benchmark.task], around or {}
    lines = [
        _line(example, field, answers[example.example_id], around.get(example.example_id))
        for example in benchmark.examples
    ]
    write_text(out, "".join(lines))


def _line(
    example: Example | Instruction, field: str, answer: str, around: Mapping[str, Any] | None = None
) -> str:
    line = {"example_id": example.example_id, "question": example.question, field: answer, **(around or {})}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _read(
    path: Path, benchmark: Benchmark, header: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """The answers of an unfinished prediction, and what stood around them: none if its first line says that they are
    another model's."""
    known: dict[str, str] = {}
    around: dict[str, dict[str, Any]] = {}
    if path.exists():
        questions = {example.example_id: example.question for example in benchmark.examples}
        for line in lines_of(path):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # a kill cut this last line off; the example is answered again
            if "answers_of" in record:
                if record != header:
                    return {}, {}
            elif record.get("question") == questions.get(record["example_id"], ""):
                known[record["example_id"]] = record[ANSWER_FIELDS[benchmark.task]]
                if "stripped" in record:
                    around[record["example_id"]] = {name: record[name] for name in ("stripped", "written")}
    return known, around
