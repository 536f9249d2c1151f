"""The report as one self-contained HTML page: style and figures are embedded, nothing is fetched."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from distilsql.report.cost import MEANING, WHY_TWO
from distilsql.report.entries import Entry
from distilsql.report.table import ComparisonTable, human_count
from distilsql.shown import shown

_ROWS_SHOWN = 8
# No script, no network, whatever a model wrote.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class AnsweredQuestion:
    """One question answered by a model: what it wrote, what the evaluator says, and the rows it got."""

    question: str
    db_id: str
    gold_sql: str
    predicted_sql: str
    verdict: str
    is_correct: bool
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    model: str = ""


@dataclass(frozen=True)
class Illustration:
    """A figure as PNG for light and for dark pages; `alt` says in words what it shows."""

    light: bytes
    dark: bytes
    alt: str
    caption: str
    is_wide: bool = False


def render_page(
    *,
    title: str,
    table: ComparisonTable,
    entries: Sequence[Entry],
    illustrations: Sequence[Illustration],
    answers: Sequence[AnsweredQuestion] = (),
    headline: str = "",
) -> str:
    """The page as text. Everything that a model, a run or a database wrote is escaped."""
    sections = [
        f"<h1>{escape(title)}</h1>",
        *([f"<p><strong>{escape(headline)}</strong></p>"] if headline else []),
        f'<p class="faint">{_overview(entries)}</p>',
        _table(table),
        f'<p class="faint">{_legend(table)}</p>',
        *(_figure(illustration) for illustration in illustrations),
    ]
    if answers:
        sections += ["<h2>Questions answered</h2>", *map(_answer, answers)]
    sections += ["<h2>Runs</h2>", _runs(entries)]
    style = resources.files("distilsql.report").joinpath("page.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>",
            *sections,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _overview(entries: Sequence[Entry]) -> str:
    runs = sum(len(entry.runs) for entry in entries)
    methods = len({entry.method for entry in entries})
    return f"{runs} run{'s' * (runs != 1)} of {methods} method{'s' * (methods != 1)}."


def _legend(table: ComparisonTable) -> str:
    """What the numbers of the table mean, for the columns that it has."""
    said = ["Accuracy in percent with its 95 % interval; the best is bold."]
    if any("±" in cell.text for row in table.rows for cell in row):
        said.append(
            "± is the standard deviation over seeds; the interval then holds chance in examples and in seeds."
        )
    if any("ROUGE-L" in title for title in table.titles):
        said.append("ROUGE-L: mean overlap with the nearest reference response (F-measure), times 100.")
    if any("T=" in title for title in table.titles):
        said.append("T: the temperature of sampled answers; the mean of the samples is shown.")
    meanings = {
        "× SFT": MEANING,
        "samples/s": "samples/s: training examples per second.",
        "teacher share": "teacher share: tokens that the teacher wrote into the student's completions.",
        "teacher passes/token": "teacher passes/token: the teacher's forward passes for each token written.",
        "ExAccErr": "ExAccErr(l): how much larger the student's error, over l tokens, is along its own samples.",
    }
    if any("; runs " in cell.text for row in table.rows for cell in row):
        meanings["× SFT"] += f" {WHY_TWO}"
    said += [text for name, text in meanings.items() if any(title.startswith(name) for title in table.titles)]
    return " ".join(map(escape, said))


def _table(table: ComparisonTable) -> str:
    classes = ["number" if numeric else "" for numeric in table.numeric]
    head = "".join(
        f'<th class="{c}">{escape(name)}</th>' for name, c in zip(table.titles, classes, strict=True)
    )
    body = []
    for number, row in enumerate(table.rows):
        is_reference = number >= len(table.rows) - table.reference_rows
        cells = "".join(
            f'<td class="{c}{" best" if cell.best else ""}">{escape(cell.text)}</td>'
            for cell, c in zip(row, classes, strict=True)
        )
        body.append(f'<tr class="reference">{cells}</tr>' if is_reference else f"<tr>{cells}</tr>")
    return _scrolled(
        f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )


def _scrolled(table: str) -> str:
    return f'<div class="scroll">{table}</div>'


def _figure(illustration: Illustration) -> str:
    alt = escape(illustration.alt, quote=True)
    size = "" if illustration.is_wide else ' class="half"'
    return (
        f'<h2>{escape(illustration.caption)}</h2><figure{size}><div class="scroll"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data_uri(illustration.dark)}">'
        f'<img src="{_data_uri(illustration.light)}" alt="{alt}"></picture></div>'
        f"<figcaption>{alt}</figcaption></figure>"
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _answer(answer: AnsweredQuestion) -> str:
    verdict = "right" if answer.is_correct else "wrong"
    about = " · ".join(filter(None, (f"database {answer.db_id}", answer.model)))
    parts = [
        f'<div class="answer"><h3>{escape(answer.question)}</h3>',
        f'<div class="faint">{escape(about)} · <span class="verdict {verdict}">{escape(answer.verdict)}</span></div>',
        f'<div class="caption">predicted</div><pre>{escape(answer.predicted_sql) or "(nothing)"}</pre>',
    ]
    if answer.predicted_sql != answer.gold_sql:
        parts.append(f'<div class="caption">gold</div><pre>{escape(answer.gold_sql)}</pre>')
    return "".join([*parts, _rows(answer), "</div>"])


def _rows(answer: AnsweredQuestion) -> str:
    if not answer.rows:
        return '<div class="faint">no rows</div>'
    head = "".join(f"<th>{escape(str(name))}</th>" for name in answer.columns)
    shown = answer.rows[:_ROWS_SHOWN]
    body = "".join("<tr>" + "".join(f"<td>{_value(value)}</td>" for value in row) + "</tr>" for row in shown)
    more = len(answer.rows) - len(shown)
    note = f'<div class="faint">and {more} more rows</div>' if more else ""
    rows = _scrolled(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    return f'<div class="caption">rows of the prediction</div>{rows}{note}'


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return '<span class="faint">NULL</span>' if value is None else escape(str(value))


def _runs(entries: Sequence[Entry]) -> str:
    """The settings of each run: enough to see that the methods were treated alike."""
    titles = ("run", "method", "seed", "steps", "examples", "minutes", "peak memory", "student", "teacher")
    numeric = (False, False, True, True, True, True, True, True, False)
    rows = []
    for run in (run for entry in entries for run in entry.runs):
        summary = run.summary
        memory = "" if summary.peak_memory_bytes is None else f"{summary.peak_memory_bytes / 2**30:.2f} GiB"
        values = (
            summary.name or run.path.name,
            summary.method,
            str(summary.seed),
            f"{summary.steps:,}",
            f"{summary.examples_seen:,}",
            f"{summary.train_seconds / 60:.1f}",
            memory,
            human_count(summary.student_parameters),
            (summary.teacher or "").rstrip("/").rpartition("/")[2],
        )
        rows.append(values)
    classes = ["number" if is_number else "" for is_number in numeric]
    head = "".join(f'<th class="{c}">{name}</th>' for name, c in zip(titles, classes, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{c}">{escape(v)}</td>' for v, c in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    return _scrolled(f'<table class="wide"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def escape(text: str, quote: bool = True) -> str:
    """`text` for HTML, with control characters escaped."""
    return html.escape(shown(text, keep_lines=True), quote)
