"""Open Images' CSV files in DuckDB, asked the same as a catalog: the reference to beat.

Labels stand twice, sorted by class and score and sorted by image; relations sorted by type. That
is the fastest of the layouts measured for DuckDB. Needs the extra `bench`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
from catalog_questions import LIMIT, Question

SPLITS = "train", "validation", "val", "test"
MEMORY = "6GB"

_TABLES = """
create table klass as select row_number() over () - 1 as id, mid, name from (
    select LabelName as mid, DisplayName as name from read_csv({classes}, all_varchar=true)
    union all select id, name from read_csv({attributes}, all_varchar=true));
create table image as select row_number() over () - 1 as id, * from read_csv({images},
    all_varchar=true, union_by_name=true);
create table by_image as select i.id::integer as image, k.id::smallint as class,
    max(l.Confidence)::float as score
    from read_csv({labels}, types={{'Confidence': 'FLOAT'}}) l
    join image i using (ImageID) join klass k on k.mid = l.LabelName
    where l.Confidence > 0 group by all order by image, class;
create table by_class as select class, score, image from by_image
    order by class, score desc, image;
create table box as select i.id::integer as image, k.id::smallint as class, b.* exclude (ImageID,
    LabelName) from read_csv({boxes}) b join image i using (ImageID)
    join klass k on k.mid = b.LabelName order by image;
create table relation as select i.id::integer as image, s.name as subject,
    r.RelationshipLabel as predicate, o.name as object, r.* exclude (ImageID, LabelName1,
    LabelName2, RelationshipLabel) from read_csv({relations}) r join image i using (ImageID)
    join klass s on s.mid = r.LabelName1 join klass o on o.mid = r.LabelName2 order by image;
create table by_type as select distinct subject, predicate, object, image from relation
    order by subject, predicate, object, image;
create table class_count as select k.name, count(*) as images from by_class c
    join klass k on k.id = c.class group by k.name order by images desc;
checkpoint;
"""

_SHOWN = "select i.ImageID, i.OriginalURL, f.* from found f join image i on i.id = f.image"
_PAGE = f"""with found as (select image, score from by_class where class = ?
    and (score, -image) < (?, ?) order by score desc, image limit {LIMIT})
    {_SHOWN} order by f.score desc, f.image"""
_ALL = f"""with found as (select image, count(*) as matched, sum(score) as score from by_class
    where class in (?, ?, ?) group by image having count(*) = 3
    order by score desc, image limit {LIMIT}) {_SHOWN} order by f.score desc, f.image"""
_ANY = f"""with found as (select image, count(*) as matched, sum(score) as score from by_class
    where class in (?, ?, ?) group by image
    order by matched desc, score desc, image limit {LIMIT})
    {_SHOWN} order by f.matched desc, f.score desc, f.image"""
_COUNT = """select count(*) from (select image from by_class where class in (?, ?, ?)
    group by image having count(*) = 3)"""
_LIKE = "subject like ? and predicate like ? and object like ?"
_RELATION = f"""with found as (select distinct image from by_type where {_LIKE} order by image
    limit {LIMIT}) {_SHOWN} order by f.image"""
_RELATION_AND_CLASS = f"""with found as (select c.image, any_value(c.score) as score from by_type t
    join by_class c on c.image = t.image where {_LIKE} and c.class = ? group by c.image
    order by score desc, c.image limit {LIMIT}) {_SHOWN} order by f.score desc, f.image"""
_TYPES = "select subject, predicate, object, count(*) from by_type group by all order by 4 desc"
_WITH = "with found as (select image from by_class where class = ?) "
_FACETS = (
    _WITH + "select k.name, c.images from (select l.class, count(*) as images from by_image l "
    "join found using (image) group by l.class) c join klass k on k.id = c.class",
    _WITH + "select predicate, count(distinct t.image) from by_type t join found using (image) "
    "group by predicate",
    "select least(floor(score * 20), 19), count(*) from by_class where class = ? group by 1",
    "select least(floor(sqrt((XMax - XMin) * (YMax - YMin)) * 20), 19), count(*) from box "
    "where class = ? group by 1",
)


class DuckDBSubject:
    """The tables of a DuckDB file, open for reading."""

    def __init__(self, path: Path) -> None:
        self.connection = duckdb.connect(str(path), read_only=True)
        self.connection.execute(f"set memory_limit='{MEMORY}'")
        self._ids = dict(self.connection.execute("select name, id from klass").fetchall())

    def ready(self, question: Question) -> Callable[[], Any]:
        """A call that fetches every row of the answer."""
        classes: list[Any] = [self._ids[name] for name in question.classes]
        pattern = [part or "%" for part in question.pattern.split("/")]
        if question.kind == "page":
            return self._call((_PAGE, [*classes, *self._start(classes[0], question.page)]))
        if question.kind == "image":
            return self._image(question.key.removesuffix(".jpg"))
        if question.kind == "relation":
            if classes:
                return self._call((_RELATION_AND_CLASS, [*pattern, *classes]))
            return self._call((_RELATION, pattern))
        if question.kind.startswith("facets"):
            return self._call(*((text, classes) for text in _FACETS))
        texts = {"all": _ALL, "any": _ANY, "count": _COUNT, "types": _TYPES}
        counts = "select name, images from class_count"
        return self._call((texts.get(question.kind, counts), classes))

    def digest(self, question: Question) -> Any:
        """As VistadexSubject.digest()."""
        answers = self.ready(question)()
        found = answers[0]
        if question.kind == "count":
            return found[0][0]
        if question.kind == "image":
            return len(answers[2]), sorted({row[0] for row in found})
        if question.kind.startswith("facets"):
            images = sum(number for _, number in answers[2])
            return images, sorted(found), sorted(answers[1])
        if question.kind in ("counts", "types"):
            return sorted(found)
        matched = {"all": 3, "any": None, "page": 1, "relation": 1 + len(question.classes)}
        if question.kind == "relation" and not question.classes:
            return [(1, 1.0) for _ in found]
        more = 1.0 if question.kind == "relation" else 0.0
        return [
            (
                row[3] if matched[question.kind] is None else matched[question.kind],
                round(row[-1] + more, 6),
            )
            for row in found
        ]

    def _call(self, *statements: tuple[str, Sequence[Any]]) -> Callable[[], Any]:
        execute = self.connection.execute
        return lambda: [execute(text, values).fetchall() for text, values in statements]

    def _start(self, class_id: int, page: int) -> tuple[float, int]:
        """Score and negative image of the last result before a page."""
        text = "select score, -image from by_class where class = ? order by score desc, image"
        text += f" limit 1 offset {(page - 1) * LIMIT - 1}"
        row = self.connection.execute(text, [class_id]).fetchone() if page > 1 else None
        return row or (2.0, 1)

    def _image(self, key: str) -> Callable[[], Any]:
        row = self.connection.execute("select id from image where ImageID = ?", [key]).fetchone()
        assert row is not None
        labels = "select k.name, l.score from by_image l join klass k on k.id = l.class"
        return self._call(
            (f"{labels} where image = ?", row),
            ("select * from image where id = ?", row),
            ("select * from box where image = ?", row),
            ("select * from relation where image = ?", row),
        )


def build(folder: Path, path: Path) -> None:
    """Reads the CSV files of a folder into a new DuckDB file."""
    path.unlink(missing_ok=True)
    kinds = {
        "classes": "*class-descriptions.csv*",
        "attributes": "*attributes-description.csv*",
        "labels": "*-imagelabels.csv*",
        "boxes": "*-annotations-bbox.csv*",
        "relations": "*-annotations-vrd.csv*",
    }
    files = {kind: str(sorted(map(str, folder.glob(form)))) for kind, form in kinds.items()}
    images = [
        str(one) for split in SPLITS for one in folder.glob(f"*{split}-images-*rotation.csv*")
    ]
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"set memory_limit='{MEMORY}'")
        connection.execute("set preserve_insertion_order=true")
        for text in _TABLES.format(images=images, **files).split(";"):
            if text.strip():
                connection.execute(text)


if __name__ == "__main__":
    import sys

    build(Path(sys.argv[1]), Path(sys.argv[2]))
