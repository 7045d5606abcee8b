"""Small Open Images folders for tests, and what a catalog holds of them, ids apart."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from vistadex.catalog import Catalog, tables
from vistadex.catalog.attributes import whole

CLASSES = {f"/m/0{i}": f"Class {i}" for i in range(40)}
PREDICATES = ("at", "holds", "is")


def write_set(root: Path, images: int = 500, seed: int = 1, *, packed: bool = False) -> None:
    """Writes a set in the published layout."""
    rng = random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    ids = [f"{rng.getrandbits(64):016x}" for _ in range(images)]
    splits = {"train": sorted(ids[: images * 3 // 4]), "test": sorted(ids[images * 3 // 4 :])}
    _write(root / "class-descriptions.csv", [f"{mid},{name}" for mid, name in CLASSES.items()])
    children = ",".join(f'{{"LabelName": "/m/0{i}"}}' for i in range(1, 5))
    fruit = f'{{"LabelName": "/m/00", "Subcategory": [{children}]}}'
    hierarchy = f'{{"LabelName": "/m/0bl9f", "Subcategory": [{fruit}]}}'
    (root / "bbox_labels_600_hierarchy.json").write_text(hierarchy)
    for split, names in splits.items():
        rows = []
        for one in names:
            said = [split, f"https://x.org/{one}_o.jpg", "", "L", "", '"A, B"', _title(rng)]
            said += [str(rng.randint(1, 9)), "", "", rng.choice(["", "0.0", "90.0"])]
            rows.append(",".join([one, *said]))
        header = (
            "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,"
            "OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
        )
        _write(root / f"{split}-images-with-rotation.csv", [header, *rows], packed=packed)
        for origin in ("human", "machine"):
            rows = [
                f"{one},{origin},{rng.choice(list(CLASSES))},{_score(rng, origin)}"
                for one in names
                for _ in range(rng.randint(0, 9))
            ]
            header = "ImageID,Source,LabelName,Confidence"
            _write(
                root / f"oidv7-{split}-annotations-{origin}-imagelabels.csv",
                [header, *rows],
                packed=packed,
            )
        _write_boxes(root / f"{split}-annotations-bbox.csv", names, rng, packed=packed)
        _write_relations(root / f"oidv6-{split}-annotations-vrd.csv", names, rng, packed=packed)


def _title(rng: random.Random) -> str:
    return rng.choice(["", "plain", '"with ""quotes"""', '"two\nlines"', "Ünï\\code"])


def _score(rng: random.Random, origin: str) -> str:
    return rng.choice(["0", "1"]) if origin == "human" else f"{rng.randint(1, 10) / 10:g}"


def _corners(rng: random.Random) -> list[str]:
    x0, x1 = sorted(rng.sample(range(1_000_000), 2))
    y0, y1 = sorted(rng.sample(range(1_000_000), 2))
    return [f"{one / 1e6:.6f}" for one in (x0, x1, y0, y1)]


def _write_boxes(path: Path, names: list[str], rng: random.Random, *, packed: bool) -> None:
    rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,"
            "IsGroupOf,IsDepiction,IsInside"]  # fmt: skip
    for one in names[::2]:
        for _ in range(rng.randint(0, 5)):
            mid, score = rng.choice(list(CLASSES)), rng.choice(["1", "0.5"])
            flags = [str(rng.choice([-1, 0, 1])) for _ in range(5)]
            rows.append(",".join([one, "xclick", mid, score, *_corners(rng), *flags]))
    _write(path, rows, packed=packed)


def _write_relations(path: Path, names: list[str], rng: random.Random, *, packed: bool) -> None:
    rows = ["ImageID,LabelName1,LabelName2,XMin1,XMax1,YMin1,YMax1,XMin2,XMax2,YMin2,YMax2,"
            "RelationshipLabel"]  # fmt: skip
    for one in names[::3]:
        for _ in range(rng.randint(0, 4)):
            mids = rng.choices(list(CLASSES)[:6], k=2)
            corners = [*_corners(rng), *_corners(rng)]
            rows.append(",".join([one, *mids, *corners, rng.choice(PREDICATES)]))
    _write(path, rows, packed=packed)


def _write(path: Path, rows: list[str], *, packed: bool = False) -> None:
    data = "".join(f"{row}\n" for row in rows).encode()
    if packed:
        path = path.with_name(path.name + ".gz")
        data = gzip.compress(data)
    path.write_bytes(data)


def contents(catalog: Catalog) -> dict[str, list[Any]]:
    """Every row of every table with names in place of ids, and without times, runs and the log.

    Attributes stand with their image, whether it has them alone or in a set with others.
    """
    with catalog.reading() as connection:
        names = _names(connection)
        found = {}
        for table in tables.metadata.sorted_tables:
            if table not in (tables.state, tables.change, tables.attribute_set, tables.run):
                rows = connection.execute(sa.select(table)).mappings()
                found[table.name] = sorted(repr(_row(table, row, names)) for row in rows)
    return found


def _names(connection: sa.Connection) -> dict[str, dict[int, Any]]:
    def of(table: sa.Table, column: sa.Column[Any]) -> dict[int, Any]:
        return {row[0]: row[1] for row in connection.execute(sa.select(table.c.id, column))}

    t = tables
    names: dict[str, dict[int, Any]] = {
        "image_id": of(t.image, t.image.c.key),
        "class_id": of(t.klass, t.klass.c.name),
        "predicate_id": of(t.predicate, t.predicate.c.name),
        "source_id": of(t.source, t.source.c.uri),
        "model_id": of(t.model, t.model.c.sha256),
    }
    names["attribute_set_id"] = of(t.attribute_set, t.attribute_set.c.attributes)
    names["parent_id"] = names["subject_id"] = names["object_id"] = names["class_id"]
    analyzers = of(t.analyzer, t.analyzer.c.model_id)
    names["analyzer_id"] = {id_: names["model_id"][one] for id_, one in analyzers.items()} | {0: ""}
    types = connection.execute(sa.select(t.relation_type)).mappings()
    parts = ("subject_id", "predicate_id", "object_id")
    names["type_id"] = {row["id"]: tuple(names[p][row[p]] for p in parts) for row in types}
    return names


_LEFT_OUT = ("id", "indexed_at", "card", "parameters", "parameters_hash", "attribute_set_id")


def _row(table: sa.Table, row: Any, names: dict[str, dict[int, Any]]) -> dict[str, Any]:
    found = {}
    for name, value in row.items():
        if name in _LEFT_OUT:
            continue
        if table is tables.image and name == "attributes":
            value = whole(value, names["attribute_set_id"].get(row["attribute_set_id"])) or None
        if name == "classes" and value is not None:
            from vistadex.catalog.packing import unpack

            value = sorted((names["class_id"][one.class_id], *one[1:]) for one in unpack(value))
        elif isinstance(value, dict):
            value = sorted(value.items())
        found[name] = names[name][value] if name in names else value
    return found
