"""The task that the demo gives to the process of each model. Imports no torch."""

import json
from dataclasses import asdict, dataclass

from distilsql.data.benchmark import SqlBenchmark
from distilsql.data.load import load_sql_benchmark

TEST = "demo:test"


@dataclass(frozen=True)
class DemoTask:
    """One model of the demo: the student of a `method`, trained for `steps`, or without a method the teacher itself.

    `teacher` is a path or the name of an embedded model; `questions` of the test are asked, by default all of them.
    """

    teacher: str
    method: str | None = None
    steps: int = 0
    questions: int | None = None

    def test(self) -> SqlBenchmark:
        test = load_sql_benchmark(TEST)
        return test if self.questions is None else test.take(self.questions, seed=0)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "DemoTask":
        return cls(**json.loads(text))
