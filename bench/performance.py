"""Write the tables of docs (performance, results, scale, methods) from bench/results/*.json, between their markers.

python bench/performance.py
"""

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from peers import PADDED, PEERS
from step_time import KEPT, TUNED

RESULTS = Path(__file__).with_name("results")
DOCS = Path(__file__).parents[1] / "docs"
Row = dict[str, Any]


def step_time(pair: dict[str, Any]) -> str:
    """One line per contender and k: seconds per example of both visits, ratios paired by window, memory, phases.

    A ratio is between second visits; between first ones where a contender's second was not measured.
    """
    rows: list[Row] = pair["rows"]
    counted = any("trained" in row for row in rows)
    by_window = {(row["contender"], row["k"], row["window"]): row for row in rows}
    groups: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["k"], row["contender"]].append(row)
    lines = [
        "| k | contender | first visit, s / example | second visit, s / example | ÷ our SFT | ÷ TRL SFT | peak GiB "
        f"| windows |{' trained tokens | computed positions |' if counted else ''} where the time goes |",
        f"| ---: | :--- | ---: | ---: | ---: | ---: | ---: | ---: |{' ---: | ---: |' if counted else ''} :--- |",
    ]
    for (k, contender), own in sorted(groups.items(), key=lambda item: item[0][0]):
        first, second = (
            _spread([row[visit] / 16 for row in own if visit in row])
            for visit in ("first_visit_seconds", "seconds")
        )
        phases = ", ".join(
            f"{name} {median(row['phases'].get(name, 0.0) for row in own) / 16:.2f}"
            for name in ("generation", "teacher", "student", "optimizer")
            if any(row.get("phases", {}).get(name) for row in own)
        )
        lines.append(
            f"| {k} | {_title(contender)}{_less(own)} | {first} | {second} "
            f"| {_ratio(own, by_window, 'sft', k)} | {_ratio(own, by_window, 'trl-sft', k)} "
            f"| {max(row['peak_bytes'] for row in own) / 2**30:.1f} | {len(own)} "
            f"|{_trained(own) if counted else ''} {phases} |"
        )
    return "\n".join(lines)


def _title(contender: str) -> str:
    name = contender.removesuffix(KEPT).removesuffix(TUNED)
    title = PEERS[name].title if name in PEERS else name.removesuffix(PADDED)
    if name.endswith(PADDED):
        title += ", padded layout"
    if contender.endswith(KEPT):
        title += ", our allocator setting"
    return f"{title}, our allocator and threads" if contender.endswith(TUNED) else title


def _less(own: list[Row]) -> str:
    """A mark for a contender that trains on fewer examples than its windows hold."""
    less = [row for row in own if "trained" in row and row["trained"]["examples"] < row["examples"]]
    if not less:
        return ""
    shares = sorted({f"{row['trained']['examples']} of {row['examples']}" for row in less})
    return f", **trains on less: {', '.join(shares)} examples**"


def _trained(own: list[Row]) -> str:
    trained = [row["trained"] for row in own if "trained" in row]
    cells = (_spread([float(one[what]) for one in trained], whole=True) for what in ("tokens", "positions"))
    return "".join(f" {cell} |" for cell in cells)


def _ratio(own: list[Row], by_window: dict[tuple[str, int, int], Row], base: str, k: int) -> str:
    pairs = [(row, by_window.get((base, k, row["window"]))) for row in own]
    return _spread([_seconds_ratio(row, other) for row, other in pairs if other])


def _seconds_ratio(row: Row, other: Row) -> float:
    visit = "seconds" if "seconds" in row and "seconds" in other else "first_visit_seconds"
    return float(row[visit] / other[visit])


def _spread(values: list[float], *, whole: bool = False) -> str:
    if not values:
        return ""
    middle, low, high = (
        f"{value:,.0f}" if whole else f"{value:.3g}" for value in (median(values), min(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def exactness(document: dict[str, Any]) -> str:
    """One line per model and program: differences to the padded reference, and what its step trained on."""
    lines = [
        "| model | program | loss, difference | gradient, largest difference | examples | trained tokens "
        "| computed positions |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model, found in document.items():
        for program, row in found["programs"].items():
            if "loss_difference" in row:
                differences = f"{row['loss_difference']:.1e} | {row['gradient_difference']:.1e}"
            elif row.get("samples"):
                differences = "samples | samples"
            else:
                differences = (
                    f"(loss {found['loss']:.3f}) | (largest gradient {found['largest_gradient']:.2g})"
                )
            less = f" of {found['rows']}: **less**" if row["rows"] < found["rows"] else ""
            lines.append(
                f"| {model} | {_title(program)} | {differences} | {row['rows']}{less} "
                f"| {row['trained_tokens']:,} | {row['positions']:,} |"
            )
    return "\n".join(lines)


def time_to_accuracy(document: dict[str, Any]) -> str:
    """One line per arm: what it reached, and the seconds until it was as accurate as TRL SFT in the end."""
    curves: dict[str, dict[str, list[dict[str, float]]]] = document["curves"]
    goals = {seed: _smooth(curve)[-1]["accuracy"] for seed, curve in curves["trl-sft"].items()}
    lines = [
        "| arm | seeds | s / step | final accuracy % | reaches TRL SFT's | after, s | ÷ TRL SFT's whole time |",
        "| :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm, by_seed in curves.items():
        shared = {seed: curve for seed, curve in by_seed.items() if seed in goals}
        reached = {seed: _reached(curve, goals[seed]) for seed, curve in shared.items()}
        seconds = [one for one in reached.values() if one is not None]
        ratios = [
            one / curves["trl-sft"][seed][-1]["seconds"] for seed, one in reached.items() if one is not None
        ]
        steps = _spread([curve[-1]["seconds"] / curve[-1]["step"] for curve in shared.values()])
        final = _spread([100 * _smooth(curve)[-1]["accuracy"] for curve in shared.values()])
        lines.append(
            f"| {_title(arm)} | {len(shared)} | {steps} | {final} | {len(seconds)} of {len(shared)} "
            f"| {_spread(seconds)} | {_spread(ratios)} |"
        )
    return "\n".join(lines)


def _smooth(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """Accuracies as means of three evaluations in a row, at the last of the three."""
    threes = zip(curve, curve[1:], curve[2:], strict=False)
    return [three[-1] | {"accuracy": sum(one["accuracy"] for one in three) / 3} for three in threes]


def _reached(curve: list[dict[str, float]], goal: float) -> float | None:
    return next((point["seconds"] for point in _smooth(curve) if point["accuracy"] >= goal), None)


def generation(document: dict[str, Any]) -> str:
    lines = [
        "| precision | questions | ours, tokens/s | `transformers`, tokens/s | seconds, theirs ÷ ours "
        "| equal completions |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for precision, found in document.items():
        questions = sum(row["questions"] for row in found["databases"])
        lines.append(
            f"| {precision} | {questions} | {found['our_tokens_per_second']:.0f} "
            f"| {found['transformers_tokens_per_second']:.0f} | {found['ratio']:.1f} "
            f"| {100 * found['equal_share']:.0f} % |"
        )
    return "\n".join(lines)


def grouping(document: dict[str, Any]) -> str:
    """One line per arm: accuracy and likelihood, each with its paired difference to the arm it is compared with."""
    lines = [
        "| arm | examples seen | EX % | difference | gold NLL, nats a token | difference |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm, training in document["training"].items():
        lines.append(f"| {arm} | {median(training['examples_seen']):.0f} | {_scores_of_arm(document, arm)} |")
    return "\n".join(lines)


def _scores_of_arm(document: dict[str, Any], arm: str) -> str:
    """Four cells: accuracy and likelihood, each with its paired difference."""
    accuracy, nll = (document[name][arm] for name in ("execution_accuracy", "gold_negative_log_likelihood"))
    cells = (
        _estimate(accuracy, 100, 1),
        _difference(accuracy, 100, 1),
        _estimate(nll, 1, 3),
        _difference(nll, 1, 3),
    )
    return " | ".join(cells)


def bridged(document: dict[str, Any]) -> str:
    """One line per arm: accuracy, likelihood, each with its paired difference, and how long a training took."""
    lines = [
        "| arm | EX % | difference | gold NLL, nats a token | difference | training, s |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for arm, training in document["training"].items():
        lines.append(
            f"| {arm} | {_scores_of_arm(document, arm)} "
            f"| {', '.join(f'{seconds:.0f}' for seconds in training['train_seconds'])} |"
        )
    return "\n".join(lines)


def top_logprobs(document: dict[str, Any]) -> str:
    """One line per divergence and k: its value, the bias, and how far the gradient is off."""
    lines = [
        "| divergence | whole | k | probability kept | form | bias | gradient off by |",
        "| :--- | ---: | ---: | ---: | :--- | ---: | ---: |",
    ]
    titles = {"other": "the rest as one outcome", "renormalised": "k tokens renormalised"}
    for divergence, own in document["divergences"].items():
        for k, kept in document["probability_kept"].items():
            for form, title in titles.items():
                if f"bias, {form}" in own[k]:
                    lines.append(
                        f"| {divergence} | {own['value']:.3f} | {k.removeprefix('k=')} | {kept:.1%} | {title} "
                        f"| {own[k][f'bias, {form}']:+.3f} | {own[k][f'gradient error, {form}']:.1%} |"
                    )
    return "\n".join(lines)


def _estimate(found: dict[str, Any], scale: int, digits: int) -> str:
    seeds = ", ".join(f"{scale * seed:.{digits}f}" for seed in found["seeds"].values())
    return f"{scale * found['mean']:.{digits}f} ({seeds})"


def _difference(found: dict[str, Any], scale: int, digits: int) -> str:
    if "difference" not in found:
        return ""
    mean, (low, high) = found["difference"]["mean"], found["difference"]["interval"]
    interval = f"[{scale * low:+.{digits}f}, {scale * high:+.{digits}f}]"
    return f"{scale * mean:+.{digits}f} {interval} to {found['difference']['to']}"


def cost_check(document: dict[str, Any]) -> str:
    """One line per step: seconds measured and predicted."""
    lines = [
        "| method | prompt | questions | measured, s | predicted, s | measured ÷ predicted |",
        "| :--- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in document["rows"]:
        measured = median(row["measured_seconds"])
        lines.append(
            f"| {row['method']} | {row['prompt']} | {row['questions']} | {measured:.2f} "
            f"| {row['predicted_seconds']:.2f} | {row['measured_over_predicted']:.2f} |"
        )
    return "\n".join(lines)


def cost_predicted(document: dict[str, Any]) -> str:
    """One line per method, teacher and number of GPUs."""
    lines = [
        "| method | teacher | GPUs | its weights | step, ms | uncompiled, ms | bound by | minutes in total | GiB |",
        "| :--- | :--- | ---: | :--- | ---: | ---: | :--- | ---: | ---: |",
    ]
    for row in document["rows"]:
        teacher = "" if row["method"] == "sft" else row["teacher_kept"]
        bound = "generation" if row["bound_by"] == "writing" else row["bound_by"]
        lines.append(
            f"| {row['method']} | {row['teacher']} | {row['gpus']} | {teacher} | {1000 * row['step_seconds']:.0f} "
            f"| {1000 * row['uncompiled_step_seconds']:.0f} | {bound} | {60 * row['hours']:.1f} "
            f"| {row['memory_gib']:.0f} |"
        )
    return "\n".join(lines)


def precision(document: dict[str, Any]) -> str:
    """One line per capability and neighbour: GFLOP/s of one thread in both precisions, and what `auto` chooses."""
    rows = [row for row in document["rows"] if row["threads"] == "one"]
    counts = list(rows[0]["gflops"]["float32"])
    titles = [f"{name}, {count} rows" for name in ("float32", "bfloat16") for count in counts]
    lines = [
        "| processor | another process | " + " | ".join(titles) + " | `auto` |",
        "| :--- | :--- | " + "---: | " * len(titles) + ":--- |",
    ]
    for row in rows:
        gflops = [f"{speed:.3g}" for of in row["gflops"].values() for speed in of.values()]
        where = f"{_capability(row, document)} | {row['neighbour']}"
        lines.append(f"| {where} | {' | '.join(gflops)} | {row['auto_precision']} |")
    return "\n".join(lines)


def threads(document: dict[str, Any]) -> str:
    """One line per way of threads, on the processor as it is: everything idle → beside a busy process."""
    own: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in document["rows"]:
        if row["capability"] == "as it is":
            own[row["threads"]][row["neighbour"]] = row
    models = list(own["one"]["none"]["step_seconds"])
    titles = ["small operations / s", "512 rows, GFLOP/s", *(f"step of {name}, s" for name in models)]
    lines = [
        "| threads | " + " | ".join(titles) + " |",
        "| :--- | " + " | ".join(["---:"] * len(titles)) + " |",
    ]
    for name, by_neighbour in own.items():
        idle, busy = by_neighbour["none"], by_neighbour["busy"]
        cells = [
            f"{idle['small_operations_per_second']:,} → {busy['small_operations_per_second']:,}",
            f"{idle['gflops']['float32']['512']:.3g} → {busy['gflops']['float32']['512']:.3g}",
        ]
        for model in models:
            before, beside = idle["step_seconds"][model], busy["step_seconds"][model]
            cells.append(f"{before:.3g} → {beside:.3g} (× {beside / before:.1f})")
        waiting = name if name == "one" else f"{document['cores']}, {name.replace('as it comes', 'default')}"
        lines.append(f"| {waiting} | {' | '.join(cells)} |")
    return "\n".join(lines)


def steps(document: dict[str, Any]) -> str:
    """One line per precision: seconds of a step of each model, one thread, nothing else running."""
    row = next(row for row in document["rows"] if "bfloat16_step_seconds" in row)
    lines = [
        "| precision | " + " | ".join(f"step of {name}, s" for name in row["step_seconds"]) + " |",
        "| :--- | " + " | ".join(["---:"] * len(row["step_seconds"])) + " |",
    ]
    for name, seconds in (("float32", row["step_seconds"]), ("bfloat16", row["bfloat16_step_seconds"])):
        lines.append(f"| {name} | " + " | ".join(f"{one:.3g}" for one in seconds.values()) + " |")
    return "\n".join(lines)


def _capability(row: Row, document: dict[str, Any]) -> str:
    return (
        document["processor"]
        if row["capability"] == "as it is"
        else f"the same, imitating {row['capability']}"
    )


def synth_value(found: dict[str, Any]) -> str:
    """One line per row: right answers in percent, by database and on average over databases."""
    rows = found["rows"]
    worlds = list(rows["start"]["databases"])
    lines = [
        f"| row | {' | '.join(world.partition(':')[2] for world in worlds)} | mean |",
        f"| :--- |{' ---: |' * (len(worlds) + 1)}",
    ]
    for name, row in rows.items():
        right = [row["databases"].get(world) for world in worlds]
        cells = " | ".join("–" if share is None else f"{share:.1%}".rstrip("%") for share in right)
        lines.append(f"| {name} | {cells} | **{100 * row['accuracy']:.1f}** |")
    return "\n".join(lines)


def synth_differences(found: dict[str, Any]) -> str:
    lines = [
        "| difference | points | 95 % interval | p | questions |",
        "| :--- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in found["differences"].items():
        low, high = 100 * row["low"], 100 * row["high"]
        points = f"{100 * row['difference']:+.1f} | {low:+.1f} to {high:+.1f}"
        chance = f"{row['p']:.3f}" if row["p"] >= 0.001 else "< 0.001"
        lines.append(f"| {name.replace(' - ', ' − ')} | {points} | {chance} | {row['questions']} |")
    return "\n".join(lines)


def synth_read(pairs: list[dict[str, Any]]) -> str:
    """Pairs that were read, and the share that agrees, by sample and in the last one by pattern."""
    lines = ["| sample | databases | agree, of 100 | what did not |", "| ---: | :--- | ---: | :--- |"]
    for sample in sorted({pair["sample"] for pair in pairs}):
        own = [pair for pair in pairs if pair["sample"] == sample]
        databases = ", ".join(dict.fromkeys(sorted(pair["database"] for pair in own)))
        why = ", ".join(dict.fromkeys(pair["why"] for pair in own if not pair["agrees"]))
        lines.append(f"| {sample} | {databases} | {sum(pair['agrees'] for pair in own)} | {why} |")
    by_pattern: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs:
        by_pattern[pair["pattern"]].append(pair["agrees"])
    lines += ["", "| pattern | read | agree |", "| :--- | ---: | ---: |"]
    for pattern, agree in sorted(by_pattern.items(), key=lambda item: sum(item[1]) / len(item[1])):
        lines.append(f"| {pattern} | {len(agree)} | {sum(agree)} |")
    return "\n".join(lines)


def main() -> None:
    processor = json.loads((RESULTS / "processor.json").read_text())
    tables = {
        "precision": precision(processor),
        "precision steps": steps(processor),
        "threads": threads(processor),
    } | {
        f"step_time {name}": step_time(pair)
        for name, pair in json.loads((RESULTS / "step_time.json").read_text()).items()
    }
    tables["exactness"] = exactness(json.loads((RESULTS / "exactness.json").read_text()))
    if (RESULTS / "time_to_accuracy.json").exists():
        found = json.loads((RESULTS / "time_to_accuracy.json").read_text())
        tables["time_to_accuracy"] = time_to_accuracy(found)
    tables["generate"] = generation(json.loads((RESULTS / "generate.json").read_text()))
    put(DOCS / "performance.md", tables)
    cost = json.loads((RESULTS / "cost_model.json").read_text())
    put(
        DOCS / "scale.md",
        {"cost check": cost_check(cost["check"]), "cost predicted": cost_predicted(cost["predict"])},
    )
    found = json.loads((RESULTS / "grouping.json").read_text())
    crossed = json.loads((RESULTS / "bridged.json").read_text())
    value = json.loads((RESULTS / "synth_value.json").read_text())
    read = [
        json.loads(line)
        for line in gzip.decompress((RESULTS / "synth_read.jsonl.gz").read_bytes()).splitlines()
    ]
    put(
        DOCS / "results.md",
        {
            "grouping": grouping(found),
            "bridged": bridged(crossed),
            "synth_value": synth_value(value),
            "synth_value differences": synth_differences(value),
            "synth_read": synth_read(read),
        },
    )
    top = json.loads((RESULTS / "top_logprobs.json").read_text())
    put(DOCS / "methods" / "top_tokens.md", {"top_logprobs": top_logprobs(top)})


def put(page: Path, tables: dict[str, str]) -> None:
    """Write each table between its markers. Exits with a sentence where a page has no place for one."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{page} has no place for the table “{name}”")
        text = _filled(pattern, table, text)
    page.write_text(text, encoding="utf-8")


def _filled(place: re.Pattern[str], table: str, text: str) -> str:
    return place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


if __name__ == "__main__":
    main()
