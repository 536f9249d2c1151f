"""Whether made pairs are worth anything: students trained on them, judged on what people ask of the same database.

    python bench/synth_value.py --data ../shared/data --model models/smollm2-135m --out runs/synth-value

Databases of Spider's dev set and BIRD's play a user's own. Of each, people's questions are divided in two by query:
half are the test of every row, half are what a person could have written. Rows, each for every database and seed:

    start           the model as it is
    synth           trained on pairs made from the SQLite file alone
    synth-teacher   the same pairs in a local teacher's words (--teacher)
    human           trained on people's half
    synth+50        the student of row synth, trained for --more-steps further on fifty of people's

The other trainings have the same number of steps. With --together, a row's student is one of all databases. One cell
after another is made and kept in --out, and the same command goes on where it was; Ctrl-C ends it after a step.
Accuracy with the benchmarks' own rules, every verdict, and differences between rows with intervals over questions go to
bench/results/synth_value.json after every cell.
"""

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from distilsql.threads import wait_briefly

wait_briefly()  # before torch is loaded

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.dice import Dice
from distilsql.data.example import Example
from distilsql.data.load import load_sql_benchmark
from distilsql.data.splits import query_key
from distilsql.databases.database import Database, open_database
from distilsql.errors import DistilSQLError, ModelError
from distilsql.files import read_json, write_json, write_text
from distilsql.inference.predict import Model, load_any, load_student, predict
from distilsql.metrics.evaluate import evaluate
from distilsql.metrics.statistics import paired_bootstrap
from distilsql.runs.folder import RunFolder
from distilsql.runs.recipe import make_recipe
from distilsql.runs.sections import PromptSettings
from distilsql.synthesis.source import open_source
from distilsql.synthesis.synthesise import synthesise
from distilsql.training.train import train

RESULTS = Path(__file__).with_name("results") / "synth_value.json"
# Those whose schemas are short, so that two cores can train on them.
DATABASES = "spider:flight_2 spider:network_1 bird:toxicology spider:cre_Doc_Template_Mgt spider:pets_1"
ROWS = ("start", "synth", "synth-teacher", "human", "synth+50")
COMPARED = (
    ("start", "synth"),
    ("synth", "synth-teacher"),
    ("human", "synth"),
    ("human", "synth+50"),
    ("synth", "synth+50"),
)
FEW = 50
PROMPT = PromptSettings(schema_filter="never", max_prompt_tokens=1024, quoting="sqlite")


@dataclass(frozen=True, eq=False)
class World:
    """A database with people's questions about it: those to learn from, and those of the test."""

    name: str
    database: Database
    learnt: tuple[Example, ...]
    test: SqlBenchmark


def world_of(name: str, data: Path) -> World:
    benchmark, _, db_id = name.partition(":")
    known = load_sql_benchmark(f"{benchmark}:dev", root=data, missing_databases="skip")
    # As a user has it: the file alone, without the benchmark's comments.
    database = open_database(known.databases[db_id].path, db_id)
    examples = [example for example in known.examples if example.db_id == db_id]
    keys = Dice(f"synth_value/{name}").shuffled(list(dict.fromkeys(map(_key, examples))))
    tested = set(keys[: len(keys) // 2])
    test = tuple(example for example in examples if _key(example) in tested)
    learnt = tuple(example for example in examples if _key(example) not in tested)
    return World(name, database, learnt, SqlBenchmark(name, test, {db_id: database}, known.evaluator))


def _key(example: Example) -> str:
    return query_key(example.gold_sql)


@dataclass(frozen=True)
class Cell:
    world: World
    row: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.world.name.replace(':', '-')}/{self.row}-{self.seed}"


def cells(worlds: Sequence[World], rows: Sequence[str], seeds: int) -> Iterator[Cell]:
    """One seed of all rows and databases before the next; the model as it is has one."""
    for seed in range(seeds):
        for world in worlds:
            yield from (Cell(world, row, seed) for row in rows if row != "start" or seed == 0)


@dataclass(frozen=True)
class Maker:
    arguments: argparse.Namespace
    worlds: Sequence[World]

    def right(self, cell: Cell) -> list[int]:
        """1 for each question of the test that is answered right, else 0."""
        file = self.file(cell)
        if not file.is_file():
            answers = predict(self._model(cell), cell.world.test, file.with_name("predictions.jsonl"))
            scores = evaluate(answers, cell.world.test)
            write_json(file, [int(verdict.is_correct) for verdict in scores.verdicts])
        return list(read_json(file))

    def file(self, cell: Cell) -> Path:
        return Path(self.arguments.out / cell.name / "right.json")

    def _model(self, cell: Cell) -> Model:
        if cell.row == "start":
            return load_any(self.arguments.model, PROMPT)
        return load_student(self._trained(cell))

    def _trained(self, cell: Cell) -> RunFolder:
        given = self.arguments
        start, steps = given.model, given.steps
        if cell.row == "synth+50":
            start, steps = str(self._trained(replace(cell, row="synth")).model), given.more_steps
        recipe = make_recipe(
            {
                "method": "sft",
                "seed": cell.seed,
                "student": {"path": start, "tuning": given.tuning, "lora_rank": given.lora_rank},
                "data": {"train": str(self._pairs(cell))},
                "prompt": PROMPT.model_dump(),
                "train": {
                    "steps": steps,
                    "learning_rate": given.learning_rate,
                    "questions_per_tree": given.questions,
                    "trees_per_step": 1,
                    "save_every_steps": 50,
                    "share_prefix": "on",
                    "calibration_windows": 0,
                },
            }
        )
        run = train(recipe, self._folder(cell) / "run")
        if not run.model.exists():  # stopped by the user after a step
            raise KeyboardInterrupt
        return run

    def _folder(self, cell: Cell) -> Path:
        """Of a student: one of each database, or one of all."""
        world = "together" if self.arguments.together else cell.world.name.replace(":", "-")
        return Path(self.arguments.out / world / f"{cell.row}-{cell.seed}")

    def _pairs(self, cell: Cell) -> Path:
        """What a student learns from, in one file."""
        lines = []
        for world in self.worlds if self.arguments.together else (cell.world,):
            place = {"database": str(Path(str(world.database.path)).absolute())}
            own = replace(cell, world=world)
            lines += [json.dumps(pair | place, ensure_ascii=False) + "\n" for pair in self._pairs_of(own)]
        file = self._folder(cell) / "pairs.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(lines))
        return file

    def _pairs_of(self, cell: Cell) -> list[dict[str, Any]]:
        if cell.row in ("human", "synth+50"):
            most = FEW if cell.row == "synth+50" else None
            chosen = Dice(f"synth_value/{cell.world.name}/few").shuffled(list(cell.world.learnt))[:most]
            return [{"question": e.question, "sql": e.gold_sql, "evidence": e.evidence} for e in chosen]
        made = (self._made(cell) / "train.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in made.splitlines()]

    def _made(self, cell: Cell) -> Path:
        """The folder of made pairs. Raises ModelError for a teacher that cannot check its own words."""
        is_taught = cell.row == "synth-teacher"
        kind = f"pairs{'-taught' if is_taught else ''}-{cell.seed}"
        folder = self.arguments.out / cell.world.name.replace(":", "-") / kind
        source = open_source(cell.world.database.path)
        wording = None
        if is_taught:
            from distilsql.inference.writer import LocalWriter
            from distilsql.synthesis.teacher.asker import ANSWERS_FILE, Answers
            from distilsql.synthesis.teacher.wording import TeacherWording

            answers = Answers(folder / ANSWERS_FILE, LocalWriter(self.arguments.teacher))
            wording = TeacherWording(answers, shares_values=True)
        synthesise(source, folder, pairs=self.arguments.pairs, seed=cell.seed, wording=wording)
        return folder


def table(right: Mapping[Cell, list[int]], rows: Sequence[str]) -> dict[str, Any]:
    """By row the mean over databases of the mean over seeds, and differences over questions, each the mean of its
    seeds, with 95 % intervals."""
    by_row: dict[str, dict[str, list[float]]] = {row: {} for row in rows}
    for row in rows:
        for world in {cell.world.name: None for cell in right}:
            found = [bits for cell, bits in right.items() if (cell.row, cell.world.name) == (row, world)]
            if found:
                by_row[row][world] = [mean(bits) for bits in zip(*found, strict=True)]
    result: dict[str, Any] = {
        "rows": {
            row: {
                "accuracy": round(mean(mean(bits) for bits in worlds.values()), 4),
                "databases": {world: round(mean(bits), 4) for world, bits in worlds.items()},
            }
            for row, worlds in by_row.items()
            if worlds
        },
        "differences": {},
    }
    for first, second in COMPARED:
        both = [world for world in by_row.get(first, {}) if world in by_row.get(second, {})]
        if both:
            pooled = [[bit for world in both for bit in by_row[row][world]] for row in (first, second)]
            low, high, p = paired_bootstrap(*pooled)
            difference = mean(pooled[1]) - mean(pooled[0])
            numbers = {"difference": difference, "low": low, "high": high, "p": p}
            result["differences"][f"{second} - {first}"] = {
                **{name: round(value, 4) for name, value in numbers.items()},
                "questions": len(pooled[0]),
                "databases": len(both),
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the data folder, holding spider/ and bird/")
    parser.add_argument("--model", required=True, help="a transformers folder")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of runs and pairs, to be gone on with"
    )
    parser.add_argument("--together", action="store_true", help="one student of all databases in each row")
    parser.add_argument("--rows", default=" ".join(ROWS))
    parser.add_argument("--teacher", help="a transformers folder; without it there is no row synth-teacher")
    parser.add_argument("--databases", default=DATABASES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=300, help="made of each database, all splits together")
    parser.add_argument("--steps", type=int, default=84)
    parser.add_argument("--more-steps", type=int, default=16, help="of row synth+50")
    parser.add_argument("--questions", type=int, default=10, help="of a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--tuning", choices=("full", "lora"), default="lora")
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument(
        "--test-limit", type=int, default=40, help="questions of each database's test, at most"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    logging.basicConfig(level="WARNING")
    rows = [row for row in given.rows.split() if row != "synth-teacher" or given.teacher]
    worlds = [world_of(name, given.data) for name in given.databases.split()]
    worlds = [World(w.name, w.database, w.learnt, w.test.take(given.test_limit, seed=0)) for w in worlds]
    maker = Maker(given, worlds)
    asked = list(cells(worlds, rows, given.seeds))
    # What was made before is in the table from the start.
    right = {cell: maker.right(cell) for cell in asked if maker.file(cell).is_file()}
    left_out: dict[str, str] = {}
    settings = {
        name: str(value) for name, value in vars(given).items() if name not in ("data", "out", "results")
    }
    settings |= {name: Path(settings[name]).name for name in ("model", "teacher")}
    for cell in asked:
        try:
            right[cell] = maker.right(cell)
        except ModelError as error:
            if cell.row != "synth-teacher":
                raise
            left_out[cell.name] = str(error)
            continue
        print(f"{cell.name}: {sum(right[cell])} of {len(right[cell])}", flush=True)
        verdicts = {cell.name: "".join(map(str, bits)) for cell, bits in right.items()}
        made = {"settings": settings, **table(right, rows), "left_out": left_out, "verdicts": verdicts}
        given.results.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: made[name] for name in ("rows", "differences", "left_out")}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("Stopped; what was made is kept, and the same command goes on.") from None
    except DistilSQLError as error:
        raise SystemExit(str(error)) from None
