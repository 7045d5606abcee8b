"""What a catalog at Open Images' size is asked, and Vistadex's answers; rivals get the same."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, cycle, islice
from typing import Any, NamedTuple, Protocol

import measuring
import sqlalchemy as sa
import tables

from vistadex import Catalog
from vistadex.catalog.tables import image, relation

LIMIT = 50
QUESTIONS = 30
"""Of each kind, all different where the catalog has so many."""


class Question(NamedTuple):
    """One thing to ask."""

    kind: str
    """page, image, all, any, relation, types, counts, facets or count."""
    classes: tuple[str, ...] = ()
    page: int = 1
    pattern: str = ""
    key: str = ""


class Case(NamedTuple):
    """Questions of one kind, asked in turn."""

    name: str
    goal_ms: float | None
    """For p95; None: said, but no goal."""
    questions: Sequence[Question]


class Subject(Protocol):
    """Who answers."""

    def ready(self, question: Question) -> Callable[[], Any]:
        """The answer to a question as a call, with all that need not be timed done before."""
        ...

    def digest(self, question: Question) -> Any:
        """The answer in a form that is the same for everyone who is right."""
        ...


def quoted(names: Sequence[str], operator: str = "&") -> str:
    """Classes as a query."""
    return f" {operator} ".join(f'"{name}"' for name in names)


class VistadexSubject:
    """An open catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._cursors: dict[tuple[str, int], str | None] = {}

    def ready(self, question: Question) -> Callable[[], Any]:
        """A call of the public API."""
        catalog, classes = self.catalog, question.classes
        if question.kind == "page":
            query, after = quoted(classes), self._cursor(classes[0], question.page)
            return lambda: catalog.search(query, limit=LIMIT, after=after)
        if question.kind == "image":
            id_ = self._id(question.key)
            return lambda: catalog.image(id_)
        if question.kind == "relation":
            query, pattern = quoted(classes), question.pattern
            return lambda: catalog.search(query, relation=pattern, limit=LIMIT)
        if question.kind in ("all", "any"):
            query = quoted(classes, "&" if question.kind == "all" else "|")
            return lambda: catalog.search(query, limit=LIMIT)
        simple: Mapping[str, Callable[[], Any]] = {
            "types": lambda: catalog.relations(question.pattern),
            "counts": catalog.classes,
            "facets": lambda: catalog.facets(quoted(classes)),
            "facets anew": lambda: facets_anew(catalog, quoted(classes)),
            "count": lambda: catalog.count(quoted(classes)),
        }
        return simple[question.kind]

    def digest(self, question: Question) -> Any:
        """Scores of a page, numbers of the rest."""
        found = self.ready(question)()
        if question.kind == "count":
            return found
        if question.kind == "image":
            return len(found.boxes), sorted({one.class_name for one in found.classes})
        if question.kind.startswith("facets"):
            return found.images, sorted(found.classes), sorted(found.predicates)
        if question.kind == "counts":
            return sorted((one.class_name, one.images) for one in found)
        if question.kind == "types":
            return sorted((one.subject, one.predicate, one.object, one.images) for one in found)
        return [(one.matched, round(one.score, 6)) for one in found.results]

    def _cursor(self, name: str, page: int) -> str | None:
        """Where a page of a class begins."""
        after = None
        for number in range(2, page + 1):
            if (name, number) not in self._cursors:
                found = self.catalog.search(quoted([name]), limit=LIMIT, after=after)
                self._cursors[name, number] = found.next
            after = self._cursors[name, number]
        return after

    def _id(self, key: str) -> int:
        with self.catalog.reading() as connection:
            query = sa.select(image.c.id).where(image.c.key == key)
            return int(connection.execute(query).scalar_one())


def facets_anew(catalog: Catalog, query: str) -> Any:
    """Facets that are not taken from those that were counted before."""
    catalog.forget()
    return catalog.facets(query)


def cases(catalog: Catalog) -> list[Case]:
    """Everything that is asked of a catalog, by what is in it."""
    counted = catalog.classes()
    names = [one.class_name for one in counted]
    common = names[:5]
    some = _spread(names, QUESTIONS)
    deep = {
        page: [one.class_name for one in counted if one.images > page * LIMIT] for page in (10, 100)
    }
    patterns = _patterns(catalog)
    threes = list(combinations(common, 3))
    found = [
        Case("one class, page 1", 2, [Question("page", (name,)) for name in some]),
        *(
            Case(
                f"one class, page {page}",
                2,
                [Question("page", (name,), page) for name in _spread(having, QUESTIONS)],
            )
            for page, having in deep.items()
        ),
        Case("one image with everything", 3, image_questions(catalog, image.c.id)),
        Case("one image with relations", 3, image_questions(catalog, relation.c.image_id)),
        Case(
            "relation pattern",
            20,
            [Question("relation", pattern=one) for one in patterns],
        ),
        Case(
            "relation pattern and a class",
            20,
            [Question("relation", (names[0],), pattern=one) for one in patterns],
        ),
        Case("relation types with counts", 20, [Question("types", pattern="//")]),
        Case("counts of all classes", 20, [Question("counts")]),
        Case("ALL of 3 common, ranked", 80, [Question("all", three) for three in threes]),
        Case("ANY of 3 common, ranked", 80, [Question("any", three) for three in threes]),
        Case("facets of the most common class", 200, [Question("facets anew", (names[0],))]),
        Case("the same, asked again", 200, [Question("facets", (names[0],))]),
        Case("facets, other classes", None, [Question("facets", (name,)) for name in some[1:]]),
        Case("count of ALL of 3 common", None, [Question("count", three) for three in threes]),
    ]
    return [case for case in found if case.questions]


def _spread(names: Sequence[str], number: int) -> list[str]:
    """So many names over all frequencies: the first ones, then in growing steps, in mixed order."""
    if not names:
        return []
    last = len(names)
    places = {min(int(last ** (i / (number - 1))), last) - 1 for i in range(number)}
    places.update(islice((i for i in range(last) if i not in places), number - len(places)))
    chosen = sorted(places)
    random.Random(3).shuffle(chosen)
    return [names[i] for i in chosen]


def image_questions(catalog: Catalog, column: sa.Column[Any]) -> list[Question]:
    """Images anywhere among those that a column names."""
    chance, found = random.Random(4), []
    with catalog.reading() as connection:
        low, high = connection.execute(sa.select(sa.func.min(column), sa.func.max(column))).one()
        for _ in range(QUESTIONS if low is not None else 0):
            near = sa.select(column).where(column >= chance.randint(low, high))
            id_ = connection.execute(near.order_by(column).limit(1)).scalar_one()
            query = sa.select(image.c.key).where(image.c.id == id_)
            found.append(Question("image", key=connection.execute(query).scalar_one()))
    return found


def _patterns(catalog: Catalog) -> list[str]:
    """Patterns of every form, from types that are there."""
    types = catalog.relations("//")
    found = []
    for one in islice(cycle(types), QUESTIONS if types else 0):
        subject, predicate, object_ = one.subject, one.predicate, one.object
        forms = (
            f"{subject}/{predicate}/{object_}",
            f"{subject}/{predicate[:2]}%/{object_}",
            f"{subject}/{predicate[:1]}%/",
            f"/{predicate}/",
            f"//{object_}",
            f"{subject}//",
        )
        found.append(forms[len(found) % len(forms)])
    return ["Person/ride%/Horse", *found][:QUESTIONS]


def measure(
    subject: Subject, asked: Sequence[Case], runs: int, budget_s: float
) -> dict[str, dict[str, Any]]:
    """Milliseconds of each case, warm: every question has been asked once before."""
    found: dict[str, dict[str, Any]] = {}
    for case in asked:
        begun = time.perf_counter()
        calls = [subject.ready(question) for question in case.questions]
        for call in calls:
            call()
            if time.perf_counter() - begun > budget_s / 2:
                break
        times: list[float] = []
        begun = time.perf_counter()
        for call in islice(cycle(calls), runs):
            started = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - started))
            if time.perf_counter() - begun > budget_s:
                break
        found[case.name] = {
            "calls": len(times),
            "median_ms": statistics.median(times),
            "p95_ms": tables.percentile(times, 0.95),
            "most_ms": max(times),
        }
        measuring.note(f"{case.name}: p95 {found[case.name]['p95_ms']:.2f} ms")
    return found


def differing(
    one: Subject, other: Subject, asked: Sequence[Case], *, whole: bool
) -> dict[str, bool]:
    """For each case, whether both answer the first question differently.

    Args:
        whole: to the last field; else what digest() says.
    """
    found = {}
    for case in asked:
        question = case.questions[0]
        answers = [
            subject.ready(question)() if whole else subject.digest(question)
            for subject in (one, other)
        ]
        found[case.name] = answers[0] != answers[1]
        if found[case.name]:
            measuring.note(f"{case.name}: answers differ on {question}")
    return found
