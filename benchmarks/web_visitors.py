"""A crowd of visitors on raw sockets, so that they take little of the cores they share."""

from __future__ import annotations

import asyncio
import html
import json
import random
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Any
from urllib.parse import quote_plus, urlsplit

RANKS = 1000
"""The most common classes, chosen by Zipf's law: the n-th one n times less often than the first."""
PAGE, JSON, THUMBNAIL = "page", "JSON", "thumbnail"
_HEADERS = {
    PAGE: "text/html,application/xhtml+xml",
    JSON: "application/json",
    THUMBNAIL: "image/avif,image/webp,image/*,*/*;q=0.8",
}
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, from the request's first byte sent to the last byte received."""

    kind: str
    name: str
    """What was asked for."""
    ms: float
    size_bytes: int
    error: str
    """Empty: status 200."""


class Connection:
    """One HTTP/1.1 connection that is kept open, to a server that says how long its answers are."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.host, self.port = place.hostname or "", place.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str, accept: str) -> tuple[int, bytes]:
        """Status and body; like a browser, once more where a kept connection had been closed.

        Raises: OSError or EOFError where the server goes away.
        """
        kept = self._streams is not None
        try:
            return await self._get(path, accept)
        except (EOFError, ConnectionError):
            if not kept:
                raise
            return await self._get(path, accept)

    async def _get(self, path: str, accept: str) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port, limit=1 << 22)
        reader, writer = self._streams
        host = f"{self.host}:{self.port}"
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n"
        try:
            writer.write(head.encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = re.search(r"(?i)\r\ncontent-length: *(\d+)", answer)
            if length is None:
                raise OSError(f"{path}: an answer without Content-Length")
            body = await reader.readexactly(int(length[1]))
        except BaseException:
            self.close()
            raise
        if re.search(r"(?i)\r\nconnection: *close", answer):
            self.close()
        return int(answer[9:12]), body

    def close(self) -> None:
        """Lets the connection go; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Known:
    """What the visitors may ask for, as the server's own lists say."""

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.weights: list[float] = []
        self.relations: list[str] = []
        self.thumbnails: list[str] = []
        self.similar_here = False
        """Whether similar images are asked of the catalog, not of the photographs."""

    async def learn(self, pages: Connection, shown: Connection) -> None:
        """Asks for the lists."""
        classes = (await _json(pages, f"/api/v1/classes?limit={RANKS}"))["classes"]
        self.classes = [one["class"] for one in classes if '"' not in one["class"]]
        self.weights = list(accumulate(1 / (i + 1) for i in range(len(self.classes))))
        for one in (await _json(pages, "/api/v1/relations?limit=200"))["relations"]:
            subject, predicate, object_ = one["subject"], one["predicate"], one["object"]
            forms = (
                f"{subject}/{predicate}/{object_}",
                f"{subject}/{predicate[:2]}%/",
                f"//{object_}",
            )
            self.relations.append(forms[len(self.relations) % len(forms)])
        _, page = await shown.get("/?limit=1000", _HEADERS[PAGE])
        found = re.findall(r'src="(/thumbnail/[^"]+)"', page.decode())
        self.thumbnails = [html.unescape(one) for one in found]
        status, found_here = await pages.get("/api/v1/search?limit=1", _HEADERS[JSON])
        first = json.loads(found_here)["results"] if status == 200 else []
        if first:
            path = f"/api/v1/images/{first[0]['id']}/similar?limit=1"
            self.similar_here = (await pages.get(path, _HEADERS[JSON]))[0] == 200
        if not (self.classes and self.thumbnails):
            raise SystemExit(f"{shown.host}:{shown.port}: no classes or no pictures to visit")

    def a_class(self, chance: random.Random) -> str:
        """A class, the common ones more often."""
        return chance.choices(self.classes, cum_weights=self.weights)[0]


async def _json(connection: Connection, path: str) -> Any:
    status, body = await connection.get(path, _HEADERS[JSON])
    if status != 200:
        raise ConnectionError(f"{path}: {status} {body[:200]!r}")
    return json.loads(body)


class Visitor:
    """One person: connections, and the page that lies before them."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd = crowd
        self.chance = random.Random(number)
        self.pages = Connection(crowd.url)
        self.shown = Connection(crowd.thumbnails_url)
        self.tiles: list[str] = []
        self.more = ""
        self.query = ""
        self.seen: set[str] = set()

    async def act(self) -> None:
        """One action, likely ones more often."""
        known = self.crowd.known
        names = list(ACTIONS)
        chosen = self.chance.choices(names, [ACTIONS[name][0] for name in names])[0]
        if (chosen == "next page" and not self.more) or (chosen == "image" and not self.tiles):
            chosen = "class"
        if chosen == "relation" and not known.relations:
            chosen = "all of several"
        await ACTIONS[chosen][1](self)

    async def get(
        self, kind: str, name: str, path: str, connection: Connection | None = None
    ) -> bytes:
        """The body of an answer, which is recorded; empty where it is an error."""
        connection = connection or (self.shown if kind == THUMBNAIL else self.pages)
        if self.crowd.distinct and kind != THUMBNAIL:
            path += f"{'&' if '?' in path else '?'}visit={next(self.crowd.visits)}"
        started, body, error = time.perf_counter(), b"", ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, body = await connection.get(path, _HEADERS[kind])
            if status != 200:
                error = f"{status} {path}"
        except (OSError, EOFError, TimeoutError) as problem:
            error = f"{type(problem).__name__} {path}"
        ms = 1e3 * (time.perf_counter() - started)
        self.crowd.answers.append(Answer(kind, name, ms, len(body), error))
        return b"" if error else body

    async def results(self, name: str, path: str) -> None:
        """A page of results with what a browser fetches beside it: facets only with the first."""
        text = (await self.get(PAGE, name, path)).decode()
        found = re.search(r'id="more" href="([^"]+)"', text)
        self.more = html.unescape(found[1]) if found else ""
        self.tiles = list(map(html.unescape, re.findall(r'class="tile" href="([^"]+)"', text)))
        beside = re.search(r'data-href="(/facets[^"]*)"', text)
        facets = html.unescape(beside[1]) if beside and name != "next page" else ""
        await asyncio.gather(self.facets(facets), self.pictures())

    async def facets(self, path: str) -> None:
        """Facets, which the page's script puts beside the pictures."""
        if path:
            await self.get(PAGE, "facets", path)

    async def pictures(self) -> None:
        """Some thumbnails that this visitor's browser does not have yet."""
        known = self.crowd.known.thumbnails
        for path in self.chance.sample(known, min(self.crowd.thumbnails, len(known))):
            if path not in self.seen or len(self.seen) == len(known):
                self.seen.add(path)
                await self.get(THUMBNAIL, "thumbnail", path)

    async def first(self) -> None:
        """The collection, newest first."""
        self.query = ""
        await self.results("first page", "/")

    async def search(self, name: str, query: str) -> None:
        """A query typed into the box."""
        self.query = query
        await self.results(name, f"/?q={quote_plus(query)}")

    async def one_class(self) -> None:
        """A class."""
        await self.search("class", f'"{self.crowd.known.a_class(self.chance)}"')

    async def several(self, name: str, operator: str) -> None:
        """Two or three classes."""
        number = self.chance.choice((2, 2, 3))
        chosen = {self.crowd.known.a_class(self.chance) for _ in range(number)}
        await self.search(name, f" {operator} ".join(f'"{one}"' for one in sorted(chosen)))

    async def relation(self) -> None:
        """Images with a relation."""
        pattern = self.chance.choice(self.crowd.known.relations)
        await self.search("relation", f'relation:"{pattern}"')

    async def following(self) -> None:
        """The next page of the result, by its cursor."""
        await self.results("next page", self.more)

    async def image(self) -> None:
        """One of the pictures before them."""
        await self.get(PAGE, "image", self.chance.choice(self.tiles))

    async def letters(self) -> None:
        """Letters typed into the box."""
        name = self.crowd.known.a_class(self.chance)
        letters = name[: self.chance.randint(1, 4)]
        await self.get(JSON, "complete", f"/api/v1/complete?prefix={quote_plus(letters)}")

    async def program(self, name: str, path: str) -> None:
        """A program that asks for the last query's answer."""
        await self.get(JSON, name, f"{path}?q={quote_plus(self.query)}")

    async def image_json(self) -> None:
        """One image as a program gets it."""
        if not self.tiles:
            await self.first()
        id_ = re.search(r"\d+", self.chance.choice(self.tiles)) if self.tiles else None
        if id_ is not None:
            await self.get(JSON, "image JSON", f"/api/v1/images/{id_[0]}")

    async def similar(self, kind: str, name: str, path: str) -> None:
        """What is like a picture: one before them, or a photograph."""
        if self.crowd.known.similar_here:
            if not self.tiles:
                await self.first()
            places, connection = self.tiles, self.pages
        else:
            places, connection = self.crowd.known.thumbnails, self.shown
        id_ = re.search(r"\d+", self.chance.choice(places)) if places else None
        if id_ is not None:
            await self.get(kind, name, path.format(id=id_[0]), connection)

    async def page(self, name: str, path: str) -> None:
        """A page that is the same for everyone."""
        await self.get(PAGE, name, path)


Action = Callable[[Visitor], Awaitable[None]]
ACTIONS: dict[str, tuple[int, Action]] = {
    "first page": (10, Visitor.first),
    "class": (20, Visitor.one_class),
    "next page": (12, Visitor.following),
    "all of several": (8, lambda one: one.several("all of several", "&")),
    "any of several": (5, lambda one: one.several("any of several", "|")),
    "relation": (5, Visitor.relation),
    "image": (10, Visitor.image),
    "similar": (4, lambda one: one.similar(PAGE, "similar", "/similar/{id}")),
    "classes": (3, lambda one: one.page("classes", "/classes")),
    "relations": (2, lambda one: one.page("relations", "/relations")),
    "complete": (10, Visitor.letters),
    "search JSON": (4, lambda one: one.program("search JSON", "/api/v1/search")),
    "facets JSON": (2, lambda one: one.program("facets JSON", "/api/v1/facets")),
    "image JSON": (3, Visitor.image_json),
    "similar JSON": (
        2,
        lambda one: one.similar(JSON, "similar JSON", "/api/v1/images/{id}/similar?limit=20"),
    ),
}
"""How often of 100 times, and what."""


class Crowd:
    """Visitors that act by themselves, and all answers that they got."""

    def __init__(
        self,
        url: str,
        thumbnails_url: str,
        *,
        visitors: int,
        think_s: float,
        thumbnails: int,
        distinct: bool = False,
    ) -> None:
        """With distinct, no address of a page or of JSON is asked for twice."""
        self.url, self.thumbnails_url = url, thumbnails_url
        self.visitors, self.think_s, self.thumbnails = visitors, think_s, thumbnails
        self.distinct, self.visits = distinct, count()
        self.known = Known()
        self.answers: list[Answer] = []

    def visit(
        self, seconds: float, look: Callable[[], None] | None = None, every_s: float = 1.0
    ) -> list[Answer]:
        """All answers within a time; `look` is called at its beginning and every so often."""
        self.answers = []
        asyncio.run(self._visit(seconds, look, every_s))
        return self.answers

    async def _visit(self, seconds: float, look: Callable[[], None] | None, every_s: float) -> None:
        if not self.known.classes:
            await self._learn()
        tasks = [asyncio.create_task(self._live(i, seconds)) for i in range(self.visitors)]
        watching = asyncio.create_task(_every(every_s, look)) if look else None
        await asyncio.gather(*tasks)
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _learn(self) -> None:
        pages, shown = Connection(self.url), Connection(self.thumbnails_url)
        await self.known.learn(pages, shown)
        for path in self.known.thumbnails:
            await shown.get(path, _HEADERS[THUMBNAIL])
        pages.close()
        shown.close()

    async def _live(self, number: int, seconds: float) -> None:
        """One visitor's time: actions that begin every think_s, from a moment of its own on."""
        visitor = Visitor(self, number)
        clock = asyncio.get_running_loop().time
        ends = clock() + seconds
        await asyncio.sleep(min(seconds, self.think_s * (number + 1) / self.visitors))
        while clock() < ends:
            due = clock() + self.think_s * visitor.chance.uniform(0.5, 1.5)
            await visitor.act()
            await asyncio.sleep(max(0.0, min(due, ends) - clock()))
        visitor.pages.close()
        visitor.shown.close()


async def _every(every_s: float, look: Callable[[], None]) -> None:
    while True:
        look()
        await asyncio.sleep(every_s)
