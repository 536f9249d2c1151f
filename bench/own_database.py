"""What a step costs on one database of one's own: a prompt cut for each question against one that all questions share.

    OMP_NUM_THREADS=1 taskset -c 1 python bench/own_database.py --model models/smollm2-135m

Makes a database of eleven tables and forty pairs about it, and takes one optimizer step of a window of these pairs from
`recipes/own.toml`, with the given model as student and teacher, twice: with the schema filter and budget of published
benchmarks (when_needed, 1,024 tokens), and as the recipe settles them for own pairs. Seconds of the clock and of the
processor, which differ where the machine is busy, go to bench/results/own_database.json.
"""

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from distilsql.inference.loading import load_engines
from distilsql.inference.prepare import load_data, prepare
from distilsql.runs.recipe import Recipe, load_recipe
from distilsql.training.environment import environment, peak_memory_bytes
from distilsql.training.ledger import Ledger
from distilsql.training.optimizer import MasterAdamW
from distilsql.training.sampling import Sampler
from distilsql.training.settle import bytes_per_token, settle_prompt
from distilsql.training.window import WindowTrainer
from distilsql.training.window_tree import as_window_trees
from random_step import whole_step

RESULTS = Path(__file__).with_name("results") / "own_database.json"
RECIPE = Path(__file__).parents[1] / "recipes" / "own.toml"
PUBLISHED = ["prompt.schema_filter=when_needed", "prompt.max_prompt_tokens=1024", "prompt.quoting=codes"]

TABLES = {
    "customers": "first_name last_name email phone street postal_code city country loyalty_level newsletter created_at",
    "suppliers": "company_name contact_person email phone street postal_code city country payment_terms rating",
    "categories": "category_name description department display_order is_active",
    "products": "product_name category_id supplier_id unit_price unit_cost weight_kg colour size barcode discontinued",
    "warehouses": "warehouse_name street postal_code city country capacity manager_name opened_on",
    "stock": "product_id warehouse_id quantity_on_hand quantity_reserved reorder_level last_counted_on shelf",
    "employees": "first_name last_name email job_title department hired_on salary manager_id warehouse_id office_city",
    "orders": "customer_id employee_id ordered_at required_on shipped_on ship_city ship_country status payment_method",
    "order_lines": "order_id product_id quantity unit_price discount tax_rate line_status gift_wrapped",
    "payments": "order_id paid_at amount currency payment_method reference status refunded_amount",
    "returns": "order_id product_id returned_at quantity reason condition refund_amount handled_by",
}
CITIES = ["Lisbon", "Porto", "Madrid", "Seville", "Lyon", "Nantes", "Turin", "Bologna", "Graz", "Ghent"]
QUESTIONS = [
    ("How many {0} are there?", "SELECT count(*) FROM {0}"),
    ("List the {1} of all {0}.", "SELECT {1} FROM {0}"),
    ("How many different {1} do the {0} have?", "SELECT count(DISTINCT {1}) FROM {0}"),
    ("Show the {1} of {0} with the highest {2}.", "SELECT {1} FROM {0} ORDER BY {2} DESC LIMIT 1"),
]


def write_world(folder: Path) -> None:
    """shop.sqlite and pairs.jsonl, the same each time."""
    with closing(sqlite3.connect(folder / "shop.sqlite")) as connection:
        for number, (table, columns) in enumerate(TABLES.items()):
            names = columns.split()
            declared = ", ".join(f"{name} {_type(name)}" for name in names)
            keys = "".join(
                f", FOREIGN KEY ({name}) REFERENCES {other} (id)"
                for name in names
                if name.endswith("_id")
                for other in TABLES
                if other.startswith(name[:-3].removesuffix("y"))
            )
            connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {declared}{keys})")
            rows = [[row, *(_cell(name, row + number) for name in names)] for row in range(1, 21)]
            marks = ", ".join("?" * (len(names) + 1))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        connection.commit()
    pairs = []
    for number in range(40):
        table = list(TABLES)[number % len(TABLES)]
        names = TABLES[table].split()
        question, sql = QUESTIONS[number // len(TABLES)]
        fields = (table, names[number % len(names)], names[(number + 3) % len(names)])
        pairs.append({"question": question.format(*fields).replace("_", " "), "sql": sql.format(*fields)})
    lines = [json.dumps(pair) + "\n" for pair in pairs]
    (folder / "pairs.jsonl").write_text("".join(lines))


def _type(name: str) -> str:
    if name.endswith("_id") or name.startswith("quantity"):
        return "INTEGER"
    if name in ("salary", "discount", "weight_kg") or name.endswith(("price", "cost", "amount", "rate")):
        return "REAL"
    return "TIMESTAMP" if name.endswith(("_at", "_on")) else "TEXT"


def _cell(name: str, row: int) -> object:
    kind = _type(name)
    if kind == "INTEGER":
        return row % 20 + 1
    if kind == "REAL":
        return row * 2.5
    if kind == "TIMESTAMP":
        return f"2024-{row % 12 + 1:02d}-{row % 28 + 1:02d}"
    return CITIES[row % len(CITIES)] if "city" in name else f"{name.split('_')[0]} {row}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a transformers folder, student and teacher")
    parser.add_argument("--method", default="kid")
    parser.add_argument("--questions", type=int, default=16, help="questions of the step")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--layers", type=int, help="of the student; by default all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_world(Path(folder))
        measured = {
            name: measure(recipe_for(Path(folder), arguments, overrides), arguments)
            for name, overrides in {"one prompt for all": [], "a cut for each question": PUBLISHED}.items()
        }
    described = environment([], 1, {}).to_json()
    result = {
        "method": arguments.method,
        "model": Path(arguments.model).name,
        "precision": arguments.precision,
        "student_layers": arguments.layers or "all",
        "questions": arguments.questions,
        **{key: described[key] for key in ("processor", "torch_threads", "packages")},
        "steps": measured,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def recipe_for(folder: Path, arguments: argparse.Namespace, overrides: list[str]) -> Recipe:
    return load_recipe(
        RECIPE,
        [
            f"method={arguments.method}",
            f"student.path={arguments.model}",
            f"teacher.path={arguments.model}",
            f"data.train={folder / 'pairs.jsonl'}",
            f"data.valid={folder / 'pairs.jsonl'}",
            f"data.database={folder / 'shop.sqlite'}",
            f"train.precision={arguments.precision}",
            *([f"student.keep_layers={arguments.layers}"] if arguments.layers else []),
            *overrides,
        ],
    )


def measure(recipe: Recipe, arguments: argparse.Namespace) -> dict[str, Any]:
    device = torch.device("cpu")
    recipe, said = settle_prompt(recipe, device)
    engines = load_engines(recipe, device)
    prepared = prepare(load_data(recipe)[0], engines.tokenizer, recipe.prompt, training=True)
    keys = [example.prefix_key for example in prepared.examples]
    trees = min(arguments.questions, recipe.train.questions_per_tree)
    sampler = Sampler(keys, 0, trees, arguments.questions // trees, recipe.train.largest_tree)
    window = max(sampler.epoch(0), key=lambda window: sum(len(tree.examples) for tree in window))
    optimizer = MasterAdamW(engines.student.model, learning_rate=0.0, weight_decay=0.0)
    trainer, items = WindowTrainer(recipe, engines, Ledger()), as_window_trees(prepared, window)
    start = time.perf_counter(), time.process_time()
    whole_step(trainer, optimizer, items)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    prefixes = {prepared.examples[tree.examples[0]].prefix_key for tree in window}
    measured = {
        "schema_filter": recipe.prompt.schema_filter,
        "max_prompt_tokens": recipe.prompt.max_prompt_tokens,
        "said": [sentence for sentence in (said, *prepared.lengths.sentences()) if sentence],
        "examples": sum(len(tree.examples) for tree in window),
        "prefixes": len(prefixes),
        "prefix_tokens": sum(len(prepared.prefixes[key]) for key in prefixes),
        "seconds": round(seconds[0], 1),
        "processor_seconds": round(seconds[1], 1),
        "peak_bytes_until_now": peak_memory_bytes(),
        "estimated_bytes_per_token": bytes_per_token(
            engines.student.causal_lm.config, recipe.train.precision
        ),
    }
    print(json.dumps(measured), file=sys.stderr, flush=True)
    return measured


if __name__ == "__main__":
    main()
