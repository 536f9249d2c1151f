"""What is asked and what is right: Example for text-to-SQL, Instruction for instruction following."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One question with its gold SQL.

    `example_id` is unique within a benchmark and stable across loads. `evidence` is BIRD's external knowledge
    (empty elsewhere). `db_id` names a Database of the same Benchmark.
    """

    example_id: str
    db_id: str
    question: str
    gold_sql: str
    evidence: str = ""
    difficulty: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """All of it that training or scoring reads."""
        return (self.example_id, self.db_id, self.question, self.gold_sql, self.evidence)


@dataclass(frozen=True)
class Instruction:
    """One instruction with its reference responses, at least one.

    `input` is what the instruction is about, such as a text to summarise; often there is none. Any reference is
    right; the first is the one that is trained on.
    """

    example_id: str
    instruction: str
    input: str
    references: tuple[str, ...]

    @property
    def question(self) -> str:
        """Instruction and input, as a person reads them."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction

    @property
    def texts(self) -> tuple[str, ...]:
        """All of it that training or scoring reads."""
        return (self.example_id, self.instruction, self.input, *self.references)
