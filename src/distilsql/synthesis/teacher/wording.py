"""Paraphrases by a teacher, each kept only if the teacher, not shown the query, answers it as the query does.

The check is blind: the teacher gets the schema and its own question, writes SQL several times, and most of what it
writes must give the query's result on the database and on every variant of it.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distilsql.databases.written_sql import query_in
from distilsql.errors import ModelError
from distilsql.progress import Advance, progress
from distilsql.synthesis.checks import Checker
from distilsql.synthesis.folder import KeptQuery
from distilsql.synthesis.teacher.asker import Answers, BudgetSpent, Cost, Request, lines_said
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
# What teachers put around a question, and before it.
_AROUND = {'"': '"', "'": "'", "`": "`", "*": "*", "“": "”", "„": "“"}
_LABEL = re.compile(r"[*]*(?:the |an? )?(?:reworded |rephrased |new )?question[*]*:[*]*", re.IGNORECASE)

_REWORD = (
    "You reword questions. Say the question that you are given in other words, as a person would ask it. Keep its "
    "meaning exactly: every condition, number, order and requested column. Keep words of the form VALUE_1 as they "
    "are. Do not answer the question: write the reworded question alone, on one line."
)
_ANSWER = (
    "Write one {dialect} query that answers the question. Words of the form VALUE_1 stand for constants; write "
    "them where the constant goes. Answer with the query alone."
)


# Questions that are worded together: all their paraphrases are asked for, then all their blind checks.
GROUP = 64

Asked = tuple[KeptQuery, str]  # a query and a question that it answers


@dataclass
class TeacherWording:
    """Called with the queries of a synthesis, gives their pairs: the teacher's wording where it passes, else the
    template's. `shares_values`: the teacher may see values of the database. Neither `group` nor the order of replies
    changes a pair, what is asked within a budget, or what is kept."""

    answers: Answers
    shares_values: bool
    group: int = GROUP
    accepted: int = 0
    refused: int = 0
    is_spent: bool = False
    _schema: str = field(init=False, default="")

    def __call__(
        self, queries: Sequence[KeptQuery], checker: Checker, world: World
    ) -> list[list[tuple[str, str]]]:
        self._schema = described(world)
        asked = [(query, question) for query in queries for question in query.questions]
        cost = sum(self._cost(question, checker).about for _, question in asked)
        log.info(f"Wording {len(asked)} questions takes about {cost:,} tokens.")
        self._try_out(queries, checker)
        worded: list[tuple[str, str]] = []
        with progress("wording by the teacher", 2 * len(asked), unit="request") as advance:
            while len(worded) < len(asked):
                group = self._next_group(asked[len(worded) :], checker)
                worded += self._worded(group, checker, advance)
        log.info(f"{self.accepted} of {self.accepted + self.refused} paraphrases passed the blind check.")
        if self.is_spent:
            log.warning("The budget is spent: the other questions are worded without the teacher.")
        left = iter(worded)
        return [[next(left) for _ in query.questions] for query in queries]

    def _cost(self, question: str, checker: Checker) -> Cost:
        """Of a question's paraphrase and the check of it, which may be longer than the question."""
        rewording = self.answers.cost(_rewording(question))
        longest = "\N{GRINNING FACE}" * LONGEST_QUESTION  # no character has more bytes
        check = self.answers.cost(self._answering(question, checker))
        longest_check = self.answers.cost(self._answering(longest, checker))
        return Cost(rewording.about + check.about, rewording.most + longest_check.most)

    def _try_out(self, queries: Sequence[KeptQuery], checker: Checker) -> None:
        """Raises ModelError if the teacher cannot answer questions whose queries are known: it could check nothing."""
        chosen = queries[:: max(1, len(queries) // TRIED_QUESTIONS)][:TRIED_QUESTIONS]
        masked = [(query, self._masked(query, query.questions[0])) for query in chosen]
        tried = dict(enumerate((query, found) for query, found in masked if found is not None))
        requests = {number: self._answering(found.question, checker) for number, (_, found) in tried.items()}
        with progress("trying the teacher", len(tried), unit="question") as advance:
            texts = self._texts(requests, advance)
        if self.is_spent:
            return
        answered = sum(self._answered(tried, texts, checker).values())
        if tried and answered < LOWEST_SHARE * len(tried):
            raise ModelError(
                f"The teacher answers {answered} of {len(tried)} questions whose queries are known, so it can check no "
                "wording; take a stronger one, or leave it out: questions are then worded without a model."
            )

    def _next_group(self, asked: Sequence[Asked], checker: Checker) -> Sequence[Asked]:
        """Those that the budget surely suffices for, or the next one alone, where it may end; all if it has."""
        if self.is_spent:
            return asked
        costs = [self._cost(question, checker) for _, question in asked[: self.group]]
        return asked[: max(1, self.answers.affordable(costs))]

    def _worded(self, group: Sequence[Asked], checker: Checker, advance: Advance) -> list[tuple[str, str]]:
        """Each question of a group, and how it is worded."""
        found = {number: self._masked(*asked) for number, asked in enumerate(group) if not self.is_spent}
        masked = {number: each for number, each in found.items() if each is not None}
        rewordings = {number: _rewording(each.question) for number, each in masked.items()}
        written = {
            number: question_in(text) for number, (text, *_) in self._texts(rewordings, advance).items()
        }
        fitting = {number: text for number, text in written.items() if _fits(text, masked[number])}
        checks = {number: self._answering(text, checker) for number, text in fitting.items()}
        texts = self._texts(checks, advance)
        asked = {number: (group[number][0], masked[number]) for number in texts}
        is_same = self._answered(asked, texts, checker)
        advance(2 * len(group) - len(written) - len(texts))  # requests that were not needed, or cost too much
        self.accepted += sum(is_same.values())
        self.refused += len(written) - len(fitting) + len(is_same) - sum(is_same.values())
        return [
            (masked[number].said(fitting[number]), "teacher")
            if is_same.get(number)
            else (question, "template")
            for number, (_, question) in enumerate(group)
        ]

    def _texts(self, requests: Mapping[int, Request], advance: Advance) -> dict[int, tuple[str, ...]]:
        """The answers by the requests' numbers, as far as the budget reaches."""
        try:
            self.answers.ask(list(requests.values()), advance)
        except BudgetSpent:
            self.is_spent = True
        found = {number: self.answers.kept(request) for number, request in requests.items()}
        return {number: texts for number, texts in found.items() if texts is not None}

    def _masked(self, query: KeptQuery, question: str) -> Masked | None:
        return unmasked(question) if self.shares_values else mask(question, query.constants)

    def _answered(
        self,
        asked: Mapping[int, tuple[KeptQuery, Masked]],
        texts: Mapping[int, Sequence[str]],
        checker: Checker,
    ) -> dict[int, bool]:
        """Whether most of each question's texts answer it as its query does."""

        def is_answered(number: int) -> bool:
            query, masked = asked[number]
            queries = [masked.queried(query_in(text).sql) for text in texts[number]]
            same = sum(checker.same_everywhere(query.sql, written) for written in queries)
            return 2 * same > len(queries)

        numbers = list(texts)
        found = checker.pool.each(len(numbers), lambda place: is_answered(numbers[place]))
        return dict(zip(numbers, found, strict=True))

    def _answering(self, question: str, checker: Checker) -> Request:
        messages = (
            {"role": "system", "content": _ANSWER.format(dialect=checker.source.dialect)},
            {"role": "user", "content": f"{self._schema}\n\nQuestion: {question}"},
        )
        return Request(messages, ANSWERS_PER_QUESTION, ANSWER_TEMPERATURE, reads="query")


def _rewording(question: str) -> Request:
    messages = (
        {"role": "system", "content": _REWORD},
        {"role": "user", "content": f"Reword this question: {question}"},
    )
    return Request(messages, temperature=PARAPHRASE_TEMPERATURE, reads="line")


def question_in(text: str) -> str:
    """The question that a teacher wrote, without a label before it and marks around it; '' where it wrote none."""
    line = _bare(next(iter(lines_said(text)), ""))
    label = _LABEL.match(line)
    return _bare(line[label.end() :]) if label else line


def _bare(text: str) -> str:
    text = text.strip()
    while len(text) > 1 and _AROUND.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _fits(text: str, masked: Masked) -> bool:
    return 10 < len(text) <= LONGEST_QUESTION and masked.holds(text) and text != masked.question


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
