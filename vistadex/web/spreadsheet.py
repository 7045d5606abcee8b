"""A result as CSV, streamed: one row for each image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi.responses import StreamingResponse

from vistadex.catalog import Catalog, IndexedImage
from vistadex.web import problems, queries
from vistadex.web.api import TheCatalog, TheList

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One row for each image",
        "content": {"text/csv": {"schema": {"type": "string"}}},
    },
    **problems.documented(400),
}
AT_A_TIME = 500
"""Images in memory at once."""
COLUMNS = (
    "id",
    "uri",
    "status",
    "width",
    "height",
    "size_bytes",
    "classes",
    "scores",
    "boxes",
    "relations",
    "models",
)
"""No cell begins with = + - or @, which spreadsheets take for formulas: an address begins with a
slash or its scheme, lists are JSON, the others are numbers and words of our own."""


def search_csv(catalog: TheCatalog, listed: TheList) -> StreamingResponse:
    """All images of a query as CSV, best first; lists within a cell are JSON."""
    if listed.ids:
        ids: Sequence[int] = [int(one) for one in listed.ids.split(",")]
    else:
        ids = catalog.ids(queries.query_text(queries.whole(listed)))
    headers = {"Content-Disposition": 'attachment; filename="vistadex.csv"'}
    return StreamingResponse(lines(catalog, ids), 200, headers, "text/csv")


def lines(catalog: Catalog, ids: Sequence[int]) -> Iterator[str]:
    """CSV of images in this order, its header first; unknown ids are left out."""
    yield _text([COLUMNS])
    for start in range(0, len(ids), AT_A_TIME):
        found = catalog.images(ids[start : start + AT_A_TIME])
        yield _text([_row(one) for one in found])


def _row(image: IndexedImage) -> tuple[object, ...]:
    return (
        image.id,
        image.uri,
        image.status,
        image.width,
        image.height,
        image.size_bytes,
        _list([one.class_name for one in image.classes]),
        _list([one.score for one in image.classes]),
        _list([one.boxes for one in image.classes]),
        _list([[one.subject, one.predicate, one.object] for one in image.relations]),
        _list(list(dict.fromkeys(image.models))),
    )


def _list(values: Sequence[object]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _text(rows: Sequence[Sequence[object]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerows(rows)
    return file.getvalue()
