"""Benchmarks of a recipe → tokens: prompts built, fitted into the length budget, and tokenised once per run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from distilsql.data.benchmark import Benchmark, InstructBenchmark, SqlBenchmark, Task
from distilsql.data.example import Example, Instruction
from distilsql.data.extra import with_extra
from distilsql.data.load import load_benchmark
from distilsql.databases.database import Database
from distilsql.databases.normalise import normalise_sql
from distilsql.databases.url import Engine
from distilsql.databases.values import ColumnName
from distilsql.errors import DataError
from distilsql.inference.given import NOTHING_GIVEN, Given
from distilsql.models.translation import Translator
from distilsql.models.tree import PromptTree
from distilsql.progress import progress
from distilsql.prompts.codes import Prompt, PromptOptions
from distilsql.prompts.fit import FittedPrefix, fit_prompt, shared_prefix
from distilsql.prompts.instruct import build_instruct_prompt, fit_instruct_prompt
from distilsql.runs.recipe import Recipe
from distilsql.runs.sections import PromptSettings


@dataclass(frozen=True)
class TokenizedExample:
    """An example ready to run. `gold` ends with EOS; `prefix_key` names its prefix among `Prepared.prefixes`."""

    example: Example | Instruction
    prefix_key: str
    question: tuple[int, ...]
    gold: tuple[int, ...]


@dataclass(frozen=True)
class LengthReport:
    """What the length budget did: prompts shortened by each named rule, and examples dropped with the reason; `shared`
    says what prefix the questions of a database share where it is to be one (`prompt.schema_filter` fixed)."""

    prompts: int
    shortened: dict[str, int]
    dropped: tuple[str, ...]
    shared: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        lines = list(self.shared)
        lines += [
            f"{count} of {self.prompts} prompts shortened by rule “{rule}”"
            for rule, count in self.shortened.items()
        ]
        if self.dropped:
            lines.append(
                f"{len(self.dropped)} of {self.prompts} examples dropped for length: {self.dropped[0]}, …"
            )
        return lines


@dataclass(frozen=True)
class Prepared:
    """Tokenised examples and their prefixes; `engines` are those of the databases, by db_id.

    `for_teacher` is the same examples in the same order, under the same keys, in the tokens of a teacher with another
    tokenizer.
    """

    examples: tuple[TokenizedExample, ...]
    prefixes: dict[str, tuple[int, ...]]
    lengths: LengthReport
    task: Task
    engines: Mapping[str, Engine] = field(default_factory=dict)
    for_teacher: "Prepared | None" = None

    def engine_of(self, example: TokenizedExample) -> Engine:
        """What runs the SQL that answers `example`."""
        asked = example.example
        return self.engines.get(asked.db_id, "sqlite") if isinstance(asked, Example) else "sqlite"

    def tree(self, examples: Sequence[TokenizedExample]) -> PromptTree:
        """The tree of examples that share one prefix."""
        return PromptTree(
            self.prefixes[examples[0].prefix_key], tuple(example.question for example in examples)
        )

    def by_prefix(self) -> list[list[TokenizedExample]]:
        """Examples that share a prefix, together; prefixes and examples in the order of `examples`."""
        return [[self.examples[number] for number in numbers] for numbers in self.numbers_by_prefix()]

    def numbers_by_prefix(self) -> list[list[int]]:
        """As `by_prefix`, by the examples' places in `examples`."""
        groups: dict[str, list[int]] = {}
        for number, example in enumerate(self.examples):
            groups.setdefault(example.prefix_key, []).append(number)
        return list(groups.values())


def load_data(recipe: Recipe, given: Given = NOTHING_GIVEN) -> tuple[Benchmark, Benchmark | None]:
    """Training and validation examples of a recipe, or those `given`, limited as it says."""
    options = recipe.data

    def load(spec: str) -> Benchmark:
        return load_benchmark(
            spec, root=options.root_path, database=options.database_place, missing_databases="skip"
        )

    train_set = given.train_set or load(options.train)
    if options.train_limit:
        train_set = train_set.take(options.train_limit, recipe.seed)
    if options.extra is not None:
        train_set = with_extra(train_set, load(options.extra))
    valid = given.valid_set or (load(options.valid) if options.valid else None)
    return train_set, valid.take(options.valid_limit, 0) if valid else None


def prompt_options(settings: PromptSettings, *, special_tokens: int = 0) -> PromptOptions:
    """`special_tokens` of the budget go to what the tokenizer puts before a prompt."""
    settings = settings.as_published()
    return PromptOptions(
        include_values=settings.values,
        include_matched_values=settings.matched_values,
        include_comments=settings.comments,
        schema_filter=settings.schema_filter,  # type: ignore[arg-type]
        template=settings.template,
        quoting=settings.quoting,  # type: ignore[arg-type]
        max_prefix_tokens=max(settings.budget_tokens - special_tokens - settings.question_tokens, 1),
    )


def prepare(
    benchmark: Benchmark,
    tokenizer: Any,
    settings: PromptSettings,
    *,
    training: bool,
    filter_seed: int = 0,
    translator: Translator | None = None,
) -> Prepared:
    """Tokenise a benchmark. In training, examples that do not fit the budget are dropped and counted; in
    prediction every example is kept, its prompt shortened as far as the rules go. `filter_seed` draws the random
    columns that the schema filter shows beside the gold ones in training (text-to-SQL only). With a `translator` they
    are tokenised for the teacher, too; what fits is counted in the student's tokens.

    Raises:
        DataError: nothing is left, or `over_length` is "error" and something would be dropped.
    """
    text = PromptTokens(tokenizer)
    shared: dict[str, FittedPrefix] = {}
    if isinstance(benchmark, InstructBenchmark):
        asked = _asked_instructions(benchmark, text, settings, training=training)
    else:
        if settings.schema_filter in ("fixed", "never"):
            shared = shared_prefixes(benchmark, text, settings)
        asked = _asked_in_sql(benchmark, text, settings, shared, filter_seed if training else None)
    examples: list[TokenizedExample] = []
    prefixes: dict[str, tuple[int, ...]] = {}
    teachers = None if translator is None else _TeachersTokens(translator)
    keys_by_text: dict[str, str] = {}
    shortened: Counter[str] = Counter()
    dropped: list[str] = []
    with progress(f"prompts of {benchmark.name}", len(benchmark.examples)) as advance:
        for example, prompt, shared_name, gold_text in asked:
            advance()
            if prompt.rule != "whole":
                shortened[prompt.rule] += 1
            gold = (*text.plain(gold_text), tokenizer.eos_token_id)
            key = keys_by_text.setdefault(prompt.prefix, shared_name or f"#{len(prefixes)}")
            prefixes.setdefault(key, text.prefix(prompt.prefix))
            question = text.plain(prompt.suffix)
            problem = _too_long(len(prefixes[key]) + len(question), len(gold), settings)
            if training and problem:
                dropped.append(f"{example.example_id} ({problem})")
                continue
            examples.append(TokenizedExample(example, key, question, gold))
            if teachers is not None:
                teachers.add(examples[-1], prompt)
    said = shared if settings.schema_filter == "fixed" else {}
    report = LengthReport(
        len(benchmark.examples),
        dict(shortened),
        tuple(dropped),
        tuple(_said_of(db_id, prefix) for db_id, prefix in said.items()),
    )
    if dropped and settings.over_length == "error":
        raise DataError(
            f"{len(dropped)} examples of {benchmark.name} exceed the length budget, first {dropped[0]}."
        )
    if not examples:
        raise DataError(
            f"No example of {benchmark.name} fits prompt.max_prompt_tokens = {settings.budget_tokens} and "
            f"prompt.max_completion_tokens = {settings.max_completion_tokens}: raise them."
        )
    engines: dict[str, Engine] = {}
    if isinstance(benchmark, SqlBenchmark):
        engines = {db_id: database.engine for db_id, database in benchmark.databases.items()}
    prepared = Prepared(tuple(examples), prefixes, report, benchmark.task, engines)
    return prepared if teachers is None else replace(prepared, for_teacher=teachers.prepared(prepared))


class _TeachersTokens:
    """Examples as a teacher with another tokenizer reads them: the same text, begun as its tokenizer begins a text."""

    def __init__(self, translator: Translator) -> None:
        self._translator, self._text = translator, PromptTokens(translator.teacher_tokenizer)
        self._examples: list[TokenizedExample] = []
        self._prefixes: dict[str, tuple[int, ...]] = {}

    def add(self, example: TokenizedExample, prompt: Prompt) -> None:
        if example.prefix_key not in self._prefixes:
            self._prefixes[example.prefix_key] = self._text.prefix(prompt.prefix)
        question, gold = self._text.plain(prompt.suffix), self._translator.of(example.gold).teacher
        self._examples.append(replace(example, question=question, gold=gold))

    def prepared(self, students: Prepared) -> Prepared:
        return replace(students, examples=tuple(self._examples), prefixes=self._prefixes)


class _Asked(NamedTuple):
    """An example as text. `shared_name` names a prefix that other examples have too; '' if it is this one's own."""

    example: Example | Instruction
    prompt: Prompt
    shared_name: str
    gold: str


def shared_prefixes(
    benchmark: SqlBenchmark, text: "PromptTokens", settings: PromptSettings
) -> dict[str, FittedPrefix]:
    """The prefix that all questions of a database share, by db_id, where `prompt.schema_filter` is fixed or never."""
    options = prompt_options(settings, special_tokens=text.special)
    return {
        db_id: shared_prefix(database, options, text.count, shown_first(settings, database))
        for db_id, database in benchmark.databases.items()
    }


def shown_first(settings: PromptSettings, database: Database) -> list[ColumnName]:
    """What training uses of `database`, or of one by another name that has the same columns."""
    if database.db_id in settings.shown_first:
        return settings.shown_first[database.db_id]
    columns = {(table.name, column.name) for table in database.schema.tables for column in table.columns}
    return next((used for used in settings.shown_first.values() if columns.issuperset(used)), [])


def _said_of(db_id: str, prefix: FittedPrefix) -> str:
    said = f"All questions about {db_id} share a prompt of {prefix.tokens:,} tokens: "
    if prefix.rule == "whole":
        return said + "its whole schema"
    others = f" and {len(prefix.cut) - 3} more" if len(prefix.cut) > 3 else ""
    return f"{said}a cut by rule “{prefix.rule}” (left out: {', '.join(prefix.cut[:3])}{others})"


def _asked_in_sql(
    benchmark: SqlBenchmark,
    text: "PromptTokens",
    settings: PromptSettings,
    shared: Mapping[str, FittedPrefix],
    training_seed: int | None,
) -> Iterator[_Asked]:
    options = prompt_options(settings, special_tokens=text.special)
    for example in benchmark.examples:
        database = benchmark.databases[example.db_id]
        engine = database.engine
        prompt = fit_prompt(
            example,
            database,
            options,
            text.count,
            settings.budget_tokens - text.special,
            shared=shared.get(example.db_id),
            training_seed=training_seed,
        )
        shared_name = example.db_id if prompt.rule == "whole" else ""
        yield _Asked(example, prompt, shared_name, normalise_sql(example.gold_sql, engine))


def _asked_instructions(
    benchmark: InstructBenchmark, text: "PromptTokens", settings: PromptSettings, *, training: bool
) -> Iterator[_Asked]:
    """The first reference is gold. Inputs are cut for prediction only: what was cut could hold the gold's reason."""
    budget_tokens = settings.budget_tokens - text.special
    for example in benchmark.examples:
        prompt = (
            build_instruct_prompt(example)
            if training
            else fit_instruct_prompt(example, text.count, budget_tokens)
        )
        shared_name = "with input" if example.input else "without input"
        yield _Asked(example, prompt, shared_name, example.references[0])


def _too_long(prompt_tokens: int, gold_tokens: int, settings: PromptSettings) -> str:
    if prompt_tokens > settings.budget_tokens:
        return f"prompt {prompt_tokens} > {settings.budget_tokens} tokens"
    if gold_tokens > settings.max_completion_tokens:
        return f"gold {gold_tokens} > {settings.max_completion_tokens} tokens"
    return ""


class PromptTokens:
    """Tokenisation as training and prediction share it: BOS where the tokenizer itself puts one, nothing else."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        first = tokenizer("a").input_ids[:1]
        self._bos = tuple(first) if first and first[0] == tokenizer.bos_token_id else ()
        self._prefix_counts: dict[str, int] = {}

    @property
    def special(self) -> int:
        """How many tokens `prefix` puts before a text's own."""
        return len(self._bos)

    def plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def prefix(self, text: str) -> tuple[int, ...]:
        return (*self._bos, *self.plain(text))

    def count(self, text: str) -> int:
        """Tokens of a text; counts are kept, since a database's prefix is counted for every question."""
        if text not in self._prefix_counts:
            self._prefix_counts[text] = len(self.plain(text))
        return self._prefix_counts[text]
