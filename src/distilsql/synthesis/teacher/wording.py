"""Paraphrases by a teacher, each kept only if the teacher, not shown the query, answers it as the query does.

The check is blind: the teacher gets the schema and its own question, writes SQL several times, and most of what it
writes must give the query's result on the database and on every variant of it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from distilsql.databases.written_sql import query_in
from distilsql.errors import ModelError
from distilsql.progress import progress
from distilsql.synthesis.checks import Checker
from distilsql.synthesis.folder import KeptQuery
from distilsql.synthesis.teacher.asker import Answers, BudgetSpent, Message, estimated
from distilsql.synthesis.teacher.masking import Masked, mask, unmasked
from distilsql.synthesis.world import World

log = logging.getLogger(__name__)

# How often the teacher answers each question, and at which temperature: at 0 it would only repeat itself.
ANSWERS_PER_QUESTION = 3
ANSWER_TEMPERATURE = 0.6
PARAPHRASE_TEMPERATURE = 0.7
# A teacher is tried on so many questions whose queries are known, and refused if it answers fewer than this share.
TRIED_QUESTIONS = 20
LOWEST_SHARE = 0.3
LONGEST_QUESTION = 400

_REWORD = (
    "Reword the question as a person would ask it who knows the subject and not the database. Keep its meaning "
    "exactly: every condition, number, order and requested column. Keep words of the form VALUE_1 as they are. "
    "Answer with the question alone, on one line."
)
_ANSWER = (
    "Write one {dialect} query that answers the question. Words of the form VALUE_1 stand for constants; write "
    "them where the constant goes. Answer with the query alone."
)


@dataclass
class TeacherWording:
    """Called with the queries of a synthesis, gives their pairs: the teacher's wording where it passes, else the
    template's. `shares_values`: the teacher may see values of the database."""

    answers: Answers
    shares_values: bool
    accepted: int = 0
    refused: int = 0
    is_spent: bool = False
    _schema: str = field(init=False, default="")

    def __call__(
        self, queries: Sequence[KeptQuery], checker: Checker, world: World
    ) -> list[list[tuple[str, str]]]:
        self._schema = described(world)
        cost = sum(self._cost(question) for query in queries for question in query.questions)
        log.info(f"Wording {sum(len(q.questions) for q in queries)} questions takes about {cost:,} tokens.")
        self._try_out(queries, checker)
        worded = []
        with progress("wording by the teacher", len(queries), unit="query") as advance:
            for query in queries:
                worded.append([self._worded(query, question, checker) for question in query.questions])
                advance()
        log.info(f"{self.accepted} of {self.accepted + self.refused} paraphrases passed the blind check.")
        if self.is_spent:
            log.warning("The budget is spent: the other questions are worded without the teacher.")
        return worded

    def _cost(self, question: str) -> int:
        answer = estimated(self._answering(question, "sqlite"), ANSWERS_PER_QUESTION)
        return estimated(_rewording(question), 1) + answer

    def _try_out(self, queries: Sequence[KeptQuery], checker: Checker) -> None:
        """Raises ModelError if the teacher cannot answer questions whose queries are known: it could check nothing."""
        tried = answered = 0
        for query in queries[:: max(1, len(queries) // TRIED_QUESTIONS)][:TRIED_QUESTIONS]:
            masked = self._masked(query, query.questions[0])
            if masked is None:
                continue
            try:
                answered += self._is_answered(masked.question, masked, query, checker)
            except BudgetSpent:
                self.is_spent = True
                return
            tried += 1
        if tried and answered < LOWEST_SHARE * tried:
            raise ModelError(
                f"The teacher answers {answered} of {tried} questions whose queries are known, so it can check no "
                "wording; take a stronger one, or leave it out: questions are then worded without a model."
            )

    def _masked(self, query: KeptQuery, question: str) -> Masked | None:
        return unmasked(question) if self.shares_values else mask(question, query.constants)

    def _worded(self, query: KeptQuery, question: str, checker: Checker) -> tuple[str, str]:
        masked = None if self.is_spent else self._masked(query, question)
        if masked is None:
            return question, "template"
        try:
            (text,) = self.answers.ask(_rewording(masked.question), temperature=PARAPHRASE_TEMPERATURE)[:1]
            text = text.strip().strip('"').strip()
            fits = "\n" not in text and 10 < len(text) <= LONGEST_QUESTION and masked.holds(text)
            if fits and text != masked.question and self._is_answered(text, masked, query, checker):
                self.accepted += 1
                return masked.said(text), "teacher"
        except BudgetSpent:
            self.is_spent = True
            return question, "template"
        self.refused += 1
        return question, "template"

    def _is_answered(self, question: str, masked: Masked, query: KeptQuery, checker: Checker) -> bool:
        messages = self._answering(question, checker.source.dialect)
        texts = self.answers.ask(messages, samples=ANSWERS_PER_QUESTION, temperature=ANSWER_TEMPERATURE)
        same = sum(checker.same_everywhere(query.sql, masked.queried(query_in(text).sql)) for text in texts)
        return 2 * same > len(texts)

    def _answering(self, question: str, dialect: str) -> list[Message]:
        return [
            {"role": "system", "content": _ANSWER.format(dialect=dialect)},
            {"role": "user", "content": f"{self._schema}\n\nQuestion: {question}"},
        ]


def _rewording(question: str) -> list[Message]:
    return [{"role": "system", "content": _REWORD}, {"role": "user", "content": question}]


def described(world: World) -> str:
    """Tables, columns, types and keys, with what they are called and what codes mean; no value of the database."""
    lines = []
    for entity in world.entities.values():
        columns = []
        for attribute in entity.attributes:
            notes = [attribute.profile.type]
            if attribute.noun != attribute.name.lower():
                notes.append(attribute.noun)
            notes += [f"{code} = {meaning}" for code, meaning in attribute.means]
            columns.append(f"{attribute.name} ({', '.join(notes)})")
        lines.append(f"table {entity.name}, a row is a {entity.one}: {'; '.join(columns)}")
    for relation in world.relations:
        pairs = zip(relation.columns, relation.parent_columns, strict=True)
        lines += [f"{relation.child}.{mine} refers to {relation.parent}.{other}" for mine, other in pairs]
    return "\n".join(lines)
