"""From run folders to tables, figures and one page. Nothing here imports torch."""

from distilsql.report.entries import Entry, Reference, group_runs
from distilsql.report.page import AnsweredQuestion
from distilsql.report.table import ComparisonTable, comparison_table, to_csv, to_markdown, to_terminal
from distilsql.report.write import ReportPaths, write_report
from distilsql.runs.records import RunRecord, Score, load_runs

__all__ = [
    "AnsweredQuestion",
    "ComparisonTable",
    "Entry",
    "Reference",
    "ReportPaths",
    "RunRecord",
    "Score",
    "comparison_table",
    "group_runs",
    "load_runs",
    "to_csv",
    "to_markdown",
    "to_terminal",
    "write_report",
]
