"""The first step of a bulk load: all columns into files by chunk of images, as they are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistadex.catalog import bulk_chunks
from vistadex.catalog.bulk_chunks import Analyses, BoxRows, Ints, Ranking, RelationRows
from vistadex.catalog.bulk_spool import CHUNK, Runs, Texts, Work
from vistadex.formats.columns import (
    KINDS,
    BoxColumns,
    Columns,
    ColumnSource,
    Contradiction,
    Kind,
    LabelColumns,
    RelationColumns,
)
from vistadex.formats.contract import Problem, Problems
from vistadex.progress import Progress
from vistadex.records import SCORE_SCALE, Json

_DTYPES: Mapping[Kind, np.dtype[Any]] = {
    "labels": bulk_chunks.LABEL,
    "boxes": bulk_chunks.BOX,
    "relations": bulk_chunks.RELATION,
}


class KeptProblems(Problems):
    """Problems that the next try still knows, of files that it does not read again."""

    def __init__(self, problems: Problems, path: Path) -> None:
        super().__init__()
        self.problems = problems
        self._kept = path.open("a+", encoding="utf-8")

    def restore(self, length: int) -> None:
        """Goes back to what was kept then, and passes it on."""
        self._kept.truncate(length)
        self._kept.seek(0)
        for line in self._kept:
            kind, values = json.loads(line)
            if kind == "loss":
                self.problems.lose(*values)
            else:
                self.problems.add(**values)

    def length(self) -> int:
        """What restore() needs."""
        self._kept.flush()
        return self._kept.tell()

    def add(self, kind: str, place: str, *, found: str, expected: str, cure: str) -> None:
        """Notes a problem."""
        values = asdict(Problem(kind, place, found, expected, cure))
        self._kept.write(json.dumps(["problem", values]) + "\n")
        self.problems.add(**values)

    def lose(self, what: str, number: int = 1) -> None:
        """Notes what can't be kept."""
        self._kept.write(json.dumps(["loss", [what, number]]) + "\n")
        self.problems.lose(what, number)

    def close(self) -> None:
        """Lets the file go."""
        self._kept.close()


@dataclass(frozen=True, slots=True)
class Numbers:
    """The catalog's ids of what columns give by position."""

    source: int
    classes: Ints
    types: Ints
    """By position in Spooled.triplets."""
    analyzers: Mapping[tuple[str, Kind], int]
    sets: Ints
    """By position in Texts.sets."""


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """All rows of a chunk; images are numbered within it."""

    keys: list[str]
    attributes: list[str | None]
    """JSON objects: of each image alone."""
    set_of: NDArray[np.int32]
    """(N,) positions in Texts.sets; NO_SET: none."""
    analyses: Analyses
    classes: Ranking
    boxes: BoxRows
    relations: RelationRows
    types: Ranking
    repeated: int
    """Labels that only repeat what others say."""
    contradictions: list[Contradiction]


class Spooled:
    """Everything that a source says, by chunk."""

    def __init__(self, source: ColumnSource, work: Work, size: int = CHUNK) -> None:
        """
        Args:
            size: images in a chunk, at most CHUNK.
        """
        self.source, self.work, self.size = source, work, size
        self.texts = Texts(work.folder, size)
        self.runs: dict[tuple[str, Kind], Runs] = {}
        self.triplets = np.empty(0, np.uint64)
        """Subject, predicate and object of every relation type, as one number, rising."""
        self.rows_by_class: Ints = np.zeros(len(source.vocabulary.classes) + 1, np.int64)
        """About how many rows image_class will have, by position of the class."""

    @property
    def images(self) -> int:
        """How many there are, each counted once."""
        return len(self.texts.by_rank)

    @property
    def chunks(self) -> int:
        return -(-self.images // self.size)

    def read(self, problems: Problems, progress: Progress) -> None:
        """Reads what an earlier try has not."""
        kept = KeptProblems(problems, self.work.folder / "problems.jsonl")
        try:
            kept.restore(self.work.marks.get("problems", 0))
            self._read_images(kept, progress)
            for origin, kind in self.source.origins:
                path = self.work.folder / f"{kind}-{origin}"
                self.runs[origin, kind] = Runs(path, _DTYPES[kind], self.images, self.size)
            self._restore()
            for kind in KINDS:
                for file in self.source.files[kind]:
                    if file not in self.work.marks["files"]:
                        self._read_file(kind, file, kept)
                        self._mark(file, kept)
                    progress.update(listed=self.images, listing=False, done=0, failed=0)
        finally:
            kept.close()

    def _read_images(self, problems: KeptProblems, progress: Progress) -> None:
        if "files" in self.work.marks:
            self.source.restore(self.work.folder)
            self.texts.restore()
            return
        self.texts.clear()
        listed = 0
        for images in self.source.images(problems):
            self.texts.add(images)
            listed += len(images.keys)
            progress.update(listed=listed, listing=True, done=0, failed=0)
        self.texts.finish(self.source.repeated())
        self.source.save(self.work.folder)
        self.work.mark(files=[], runs={}, problems=problems.length())

    def _read_file(self, kind: Kind, file: str, problems: KeptProblems) -> None:
        for columns in self.source.read(kind, file, problems):
            ranks = self.texts.ranks[columns.images].astype(np.int64)
            self.runs[columns.origin, kind].add(ranks, self._records(columns, ranks % self.size))

    def _records(self, columns: Columns, images: Ints) -> NDArray[Any]:
        """The columns as they are spooled, counted by class and type."""
        size = len(self.rows_by_class)
        if isinstance(columns, LabelColumns):
            self.rows_by_class += np.bincount(columns.classes, minlength=size)
            return bulk_chunks.label_records(columns, images)
        if isinstance(columns, BoxColumns):
            self.rows_by_class += np.bincount(columns.classes, minlength=size)
            return bulk_chunks.box_records(columns, images)
        assert isinstance(columns, RelationColumns)
        self.triplets = np.union1d(self.triplets, bulk_chunks.triplets(columns))
        return bulk_chunks.relation_records(columns, images)

    def _mark(self, file: str, problems: KeptProblems) -> None:
        self.source.save(self.work.folder)
        np.savez(
            self.work.folder / f"totals-{len(self.work.marks['files']) + 1}",
            triplets=self.triplets,
            rows_by_class=self.rows_by_class,
        )
        runs = {f"{origin}/{kind}": run.state() for (origin, kind), run in self.runs.items()}
        files = [*self.work.marks["files"], file]
        self.work.mark(files=files, runs=runs, problems=problems.length())

    def _restore(self) -> None:
        for (origin, kind), run in self.runs.items():
            run.restore(self.work.marks["runs"].get(f"{origin}/{kind}", []))
        if self.work.marks["files"]:
            path = self.work.folder / f"totals-{len(self.work.marks['files'])}.npz"
            with np.load(path) as totals:
                self.triplets = totals["triplets"]
                self.rows_by_class = totals["rows_by_class"]

    def chunk(self, number: int, numbers: Numbers) -> ChunkRows:
        """The rows of a chunk."""
        texts, contradictions = self.texts.chunk(number)
        said: list[Ranking] = []
        repeated = 0
        empty = np.empty(0, np.int64)
        none = np.empty(0, bulk_chunks.BOX), np.empty(0, bulk_chunks.RELATION)
        boxes, _ = bulk_chunks.box_rows(none[0], numbers.classes, 0)
        relations, types = bulk_chunks.relation_rows(none[1], self.triplets, empty, 0)
        related = None
        for (origin, kind), run in self.runs.items():
            records, analyzer = run.chunk(number), numbers.analyzers[origin, kind]
            if kind == "labels":
                ranking, again, several = bulk_chunks.ranked_labels(
                    records, numbers.classes, analyzer
                )
                said.append(ranking)
                repeated += again
                contradictions += self._contradictions(several, texts.keys, numbers)
            elif kind == "boxes":
                boxes, ranking = bulk_chunks.box_rows(records, numbers.classes, analyzer)
                said.append(ranking)
            else:
                relations, types = bulk_chunks.relation_rows(
                    records, self.triplets, numbers.types, analyzer
                )
                related = (np.unique(relations.images), analyzer)
        return ChunkRows(
            *texts,
            bulk_chunks.analyses(said, related),
            bulk_chunks.present(Ranking.joined(said)),
            boxes,
            relations,
            types,
            repeated,
            contradictions,
        )

    def _contradictions(
        self, several: Ints, keys: Sequence[str], numbers: Numbers
    ) -> list[Contradiction]:
        """Those of bulk_chunks.ranked_labels() by name."""
        if not len(several):
            return []
        names = dict(zip(numbers.classes.tolist(), self.source.vocabulary.classes, strict=True))
        scores: dict[tuple[int, int], list[Json]] = {}
        for image, class_id, score in several.tolist():
            scores.setdefault((image, class_id), []).append(score / SCORE_SCALE)
        return [
            Contradiction(keys[image], names[class_id], values, is_class=True)
            for (image, class_id), values in scores.items()
        ]

    def note(self, number: int, rows: ChunkRows) -> None:
        """Keeps what there is to say of a chunk, until all are entered."""
        path = self.work.folder / f"said-{number}.json"
        said = {
            "analyses": Counter(rows.analyses.analyzers.tolist()),
            "repeated": rows.repeated,
            "contradictions": rows.contradictions,
        }
        path.write_text(json.dumps(said))

    def _noted(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.work.folder / f"said-{number}.json").read_text())
        return found

    def lengths(self) -> dict[str, int]:
        """How many rows the tables by image have to have, once all chunks are noted."""
        found = {"image": self.images, "box": 0, "relation": 0}
        for (_, kind), run in self.runs.items():
            if kind != "labels":
                found["box" if kind == "boxes" else "relation"] += run.length
        return {**found, "analysis": self.seen().total()}

    def seen(self) -> Counter[int]:
        """How many images each analyzer says something of, once all chunks are noted."""
        found: Counter[int] = Counter()
        for number in range(self.chunks):
            for analyzer, images in self._noted(number)["analyses"].items():
                found[int(analyzer)] += images
        return found

    def tell(self, place: str, problems: Problems) -> int:
        """Reports the contradictions of all chunks; how many labels only repeat others.

        Args:
            place: of the set.
        """
        repeated = 0
        for number in range(self.chunks):
            noted = self._noted(number)
            repeated += noted["repeated"]
            for values in noted["contradictions"]:
                found = Contradiction(*values)
                self.source.contradicts(f"{place} {found.key!r}", found, problems)
        return repeated

    def close(self) -> None:
        """Lets the files go."""
        self.texts.close()
        for run in self.runs.values():
            run.close()
