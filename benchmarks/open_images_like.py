"""Writes a folder of invented annotations in the layout of Open Images' published CSV files.

Default: 9,000,000 images, 60 million image labels, 16 million boxes on 1.9 million images and
3.3 million relations; `--images` scales all of it, shares stay. Frequencies follow Zipf's law over
20,000 classes: the first one is in 28 % of the images, the second in 15 %, the third in 10.5 %, the
median one in 1,300 of 9 million. Images belong to topics, and so do classes: what is rare
elsewhere is usual in its topics. Boxes are of classes that people verified, relations connect
boxes. Same seed, same bytes.

Lists of images have the published columns, but only ImageID, Subset, OriginalURL, License and
Rotation are filled, as photographers' names say nothing; `--full-columns` fills the others too.
Lists of boxes lack the clicks of the annotators, as the sets of validation and test do.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import measuring
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

FULL = 9_000_000
LABELS, BOXES, BOXED, RELATIONS = 60_000_000, 16_000_000, 1_900_000, 3_300_000
"""Rows for FULL images; BOXED are images with boxes."""
SPLITS: Mapping[str, int] = {"train": 9_011_219, "validation": 41_620, "test": 125_436}
"""Images of the true set; the look-alike has the same shares."""
CLASSES, BOXABLE, TOPICS, TRIPLETS = 20_000, 600, 300, 1_500
FIRST, SECOND, THIRD, MEDIAN = 0.28, 0.153, 0.105, 1_300 / FULL
HUMAN, BOTH, ABSENT = 0.40, 0.05, 0.15
"""Shares: of what is there, said by people; by people and machines; of people's rows, a No."""
ATTRIBUTE = 0.4
"""Share of relations that say what something is."""
CHUNK = 100_000
SEED = 20240601
_Ints = NDArray[np.int64]

NAMES = (
    "Person|Clothing|Tree|Man|Plant|Human face|Woman|Car|Building|Food|Footwear|Wheel|Flower|Dog"
    "|Girl|House|Window|Horse|Chair|Bird|Table|Mammal|Boy|Bicycle|Cat|Boat|Toy|Dress|Tire|Guitar"
    "|Suit|Jeans|Glasses|Drink|Poster|Sky|Grass|Water|Mountain|Street|Fashion|Vehicle|Sports"
    "|Jacket|Bottle|Furniture|Bus|Airplane|Fish|Fruit|Apple|Dessert|Hat|Sunglasses|Helmet|Train"
    "|Motorcycle|Microphone|Mobile phone|Book|Desk|Wine|Beer|Coffee cup|Bench|Couch|Bed|Cake"
    "|Football|Tent|Umbrella|Backpack|Handbag|Truck|Duck|Sculpture|Skyscraper|Musical instrument"
    "|Drum|Piano|Violin|Camera|Laptop|Television|Door|Lamp|Clock|Flag|Rose|Orange|Strawberry"
    "|Sandwich|Pizza|Elephant|Sheep|Cattle|Goat|Butterfly|Ball|Surfboard|Skateboard|Snowboard|Kite"
).split("|")
PREDICATES = (
    "at|holds|wears|surf|hang|drink|holding_hands|on|ride|dance|skateboard|catch|highfive"
    "|inside_of|eat|cut|contain|handshake|kiss|talk_on_phone|interacts_with|under|hugs|throw"
    "|hits|snowboard|kick|ski|plays|read"
).split("|")
ATTRIBUTES = (
    "Wooden|Plastic|Transparent|(made of)Textile|(made of)Leather|Sit|Stand|Walk|Run|Jump|Lay"
    "|Smile|Talk|Sing|Cry"
).split("|")
ALWAYS = (("Person", "ride", "Horse"), ("Man", "ride", "Horse"), ("Woman", "hugs", "Dog"))
"""Triplets that are there at every size that has room for them."""
LICENSE = "https://creativecommons.org/licenses/by/2.0/"
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")
IMAGE_COLUMNS = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title"
    ",OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation"
).split(",")


def shares() -> NDArray[np.float64]:
    """(CLASSES,) in which part of the images each class is, most frequent first."""
    people = HUMAN * ABSENT / (1 - ABSENT)
    wanted = LABELS / FULL / (1 + BOTH + people)
    x = np.log(np.arange(3, CLASSES + 1) / 3)
    middle = math.log(CLASSES / 2 / 3)
    slope = math.log(THIRD / MEDIAN) / middle
    low, high = -0.1, 0.1
    for _ in range(60):  # the sag between both ends that makes the sum right
        sag = (low + high) / 2
        rest = THIRD * np.exp(-slope * x - sag * x * (middle - x))
        low, high = (sag, high) if FIRST + SECOND + rest.sum() > wanted else (low, sag)
    return np.concatenate([[FIRST, SECOND], rest])


class Topics:
    """How often each class comes in images of each topic; drawn once for all sizes.

    Draws are Poisson, so a class is in an image with 1 - exp(-rate): rates are set so that this is
    its share over all topics.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        weights = 1 / np.arange(10, 10 + TOPICS) ** 0.7
        weights /= weights.sum()
        self.cumulated = np.cumsum(weights)
        there = shares()
        everywhere = np.where(np.arange(CLASSES) < 50, 0.5, 0.2) * there
        own = there - everywhere
        topics, classes, rates = [], [], []
        for i in range(CLASSES):
            order = np.argsort(-np.log(weights) - rng.gumbel(size=TOPICS))
            room = np.cumsum(weights[order])
            # No topic has it in more than 7 of 10 images.
            number = 1 + int(np.searchsorted(room, own[i] / (0.7 - everywhere[i])))
            number = max(number, int(rng.integers(1, 4)))
            inside = everywhere[i] + own[i] / room[number - 1]
            topics.append(order[:number])
            classes.append(np.full(number, i))
            rates.append(np.full(number, np.log1p(-everywhere[i]) - np.log1p(-inside)))
        self._everywhere = -np.log1p(-everywhere)
        self._set_home(np.concatenate(topics), np.concatenate(classes), np.concatenate(rates))
        self.everywhere_rate = float(self._everywhere.sum())
        self._everywhere = np.cumsum(self._everywhere) / self.everywhere_rate

    def _set_home(self, topics: _Ints, classes: _Ints, rates: NDArray[np.float64]) -> None:
        order = np.argsort(topics, kind="stable")
        topics, self._home_classes, rates = topics[order], classes[order], rates[order]
        self.home_rates = np.bincount(topics, rates, TOPICS)
        before = np.concatenate([[0], np.cumsum(self.home_rates)[:-1]])
        within = (np.cumsum(rates) - before[topics]) / self.home_rates[topics]
        self._home = topics + np.minimum(within, 1)

    def everywhere(self, rng: np.random.Generator, number: int) -> _Ints:
        """So many classes, whatever the topic."""
        drawn = np.searchsorted(self._everywhere, rng.random(number), side="right")
        return np.minimum(drawn, CLASSES - 1)

    def draw(self, rng: np.random.Generator, images: int) -> _Ints:
        """Pairs of image and class as image * CLASSES + class, rising."""
        topics = np.searchsorted(self.cumulated, rng.random(images))
        topics = np.minimum(topics, TOPICS - 1)
        general = np.repeat(np.arange(images), rng.poisson(self.everywhere_rate, images))
        own = np.repeat(np.arange(images), rng.poisson(self.home_rates[topics]))
        found = np.searchsorted(self._home, topics[own] + rng.random(len(own)), side="right")
        found = self._home_classes[np.minimum(found, len(self._home) - 1)]
        first = general * CLASSES + self.everywhere(rng, len(general))
        return np.unique(np.concatenate([first, own * CLASSES + found]))


class Vocabulary:
    """Names and ids of classes, which of them have boxes, and the types of relations."""

    def __init__(self) -> None:
        rng = np.random.default_rng([SEED, 1])
        self.names = [*NAMES, *_invented(rng, CLASSES - len(NAMES))]
        numbers = rng.permutation(CLASSES + len(ATTRIBUTES))
        ids = [f"/m/0{np.base_repr(1_000_003 + 7 * int(i), 36).lower()}" for i in numbers]
        self.mids = pa.array(ids)
        self.boxable = np.zeros(CLASSES, bool)
        self.boxable[: BOXABLE // 2] = True
        more = BOXABLE // 2 + rng.permutation(BOXABLE * 10)[: BOXABLE - BOXABLE // 2]
        self.boxable[more] = True
        self._make_triplets(rng)

    def _make_triplets(self, rng: np.random.Generator) -> None:
        """Types of relations: most between frequent classes."""
        boxable = np.flatnonzero(self.boxable)
        frequent = np.log(shares()[boxable])
        found = {(NAMES.index(s), PREDICATES.index(p), NAMES.index(o)) for s, p, o in ALWAYS}
        weights = 1 / np.arange(1, len(PREDICATES) + 1) ** 0.8
        attributes = TRIPLETS // 5
        while len(found) < TRIPLETS - attributes:
            size = (2, TRIPLETS)
            chosen = np.exp(frequent) ** 0.8
            subject, object_ = rng.choice(boxable, size, p=chosen / chosen.sum())
            predicate = rng.choice(len(PREDICATES), TRIPLETS, p=weights / weights.sum())
            rows = zip(subject.tolist(), predicate.tolist(), object_.tolist(), strict=True)
            found.update(list(rows)[: TRIPLETS - attributes - len(found)])
        self.triplets = _ByPair(np.array(sorted(found)), CLASSES)
        kinds = range(len(ATTRIBUTES))
        said = [(int(c), 0, CLASSES + a) for c in boxable[: attributes // 5] for a in kinds]
        keep = np.sort(rng.permutation(len(said))[:attributes])
        self.attributes = _ByPair(np.array(said)[keep], 0)

    def write(self, folder: Path) -> None:
        """The files beside the rows: names, attributes, predicates, hierarchy."""
        mids = self.mids.to_pylist()
        classes = list(zip(mids, self.names, strict=False))
        boxable = [classes[i] for i in np.flatnonzero(self.boxable)]
        attributes = zip(mids[CLASSES:], ATTRIBUTES, strict=True)
        _write_text(
            folder / "oidv7-class-descriptions.csv", [("LabelName", "DisplayName"), *classes]
        )
        _write_text(folder / "class-descriptions-boxable.csv", boxable)
        _write_text(folder / "oidv6-attributes-description.csv", [("id", "name"), *attributes])
        predicates = [("is", "is"), *zip(PREDICATES, PREDICATES, strict=True)]
        _write_text(folder / "oidv6-relationships-description.csv", predicates)
        nodes: list[dict[str, Any]] = [{"LabelName": mid} for mid, _ in boxable]
        root: dict[str, Any] = {"LabelName": "/m/0bl9f"}
        for i, node in enumerate(nodes):  # 40 trees; every node has at most eight below it
            above = root if i < 40 else nodes[(i - 40) // 8]
            above.setdefault("Part" if i % 25 == 24 else "Subcategory", []).append(node)
        (folder / "bbox_labels_600_hierarchy.json").write_text(json.dumps(root))


class _ByPair:
    """Types of relations, found by their classes."""

    def __init__(self, types: _Ints, second: int) -> None:
        """second: what subjects are multiplied with; 0: objects do not matter."""
        self._second = second
        keys = types[:, 0] * max(second, 1) + (types[:, 2] if second else 0)
        order = np.argsort(keys, kind="stable")
        self._types = types[order]
        self._keys, self._first, self._number = np.unique(
            keys[order], return_index=True, return_counts=True
        )

    def draw(self, rng: np.random.Generator, subjects: _Ints, objects: _Ints) -> tuple[_Ints, ...]:
        """Positions of pairs that relate, and for each its predicate and object."""
        keys = subjects * max(self._second, 1) + (objects if self._second else 0)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = np.flatnonzero(self._keys[at] == keys)
        at = at[found]
        step = (self._number[at] * rng.random(len(at)) ** 2).astype(np.int64)
        chosen = self._types[self._first[at] + step]
        return found, chosen[:, 1], chosen[:, 2]


def _invented(rng: np.random.Generator, number: int) -> list[str]:
    """So many different names."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "el")]
    order = rng.permutation(len(syllables) ** 3)[:number]
    size = len(syllables)
    parts = [(i // size**2, i // size % size, i % size) for i in order.tolist()]
    return ["".join(syllables[j] for j in three).capitalize() for three in parts]


def _write_text(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    path.write_text("".join(f"{a},{b}\n" for a, b in rows), encoding="utf-8")


class Boxes(NamedTuple):
    """The boxes of a chunk: (B,) each, rising by image."""

    owners: _Ints
    classes: _Ints
    corners: NDArray[np.float64]
    """(B, 4) XMin, XMax, YMin, YMax."""


def draw_boxes(
    rng: np.random.Generator, pairs: _Ints, number: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each box the position of its pair, rising, and its corners."""
    if not len(pairs):
        return np.empty(0, np.int64), np.empty((0, 4))
    weights = rng.gamma(0.4, size=len(pairs)) + 1e-9
    more = rng.multinomial(max(0, number - len(pairs)), weights / weights.sum())
    of_pair = np.repeat(np.arange(len(pairs)), 1 + more)
    # Many of one class are small.
    largest = 1 / np.sqrt(1 + more[of_pair])
    sizes = np.clip(rng.beta(1.3, 2, (2, len(of_pair))) * largest, 0.01, 0.999)
    first = rng.random((2, len(of_pair))) * (1 - sizes)
    edge = rng.random((2, len(of_pair))) < 0.15
    first = np.where(edge, 0, np.maximum(first, 0.001))
    last = np.minimum(first + sizes, 1)
    return of_pair, np.round(np.stack([first[0], last[0], first[1], last[1]], 1), 6)


def draw_relations(
    rng: np.random.Generator, vocabulary: Vocabulary, boxes: Boxes, number: int
) -> _Ints:
    """(R, 4) both boxes, predicate (len(PREDICATES): is) and object of each; rising."""
    found = np.empty((0, 4), np.int64)
    if not len(boxes.owners) or not number:
        return found
    starts = np.searchsorted(boxes.owners, boxes.owners)
    ends = np.searchsorted(boxes.owners, boxes.owners, side="right")
    for wanted, types in (
        (round(number * ATTRIBUTE), vocabulary.attributes),
        (number - round(number * ATTRIBUTE), vocabulary.triplets),
    ):
        some = np.empty((0, 4), np.int64)
        for _ in range(30):
            if len(some) >= wanted:
                break
            one = rng.integers(len(boxes.owners), size=2 * wanted + 1000)
            same = types is vocabulary.attributes
            other = one if same else rng.integers(starts[one], ends[one])
            related, predicates, objects = types.draw(rng, boxes.classes[one], boxes.classes[other])
            predicates = np.full(len(related), len(PREDICATES)) if same else predicates
            rows = np.stack([one[related], other[related], predicates, objects], 1)
            # Boxes of one class stand in crowds, whose members would be most of all pairs.
            alike = boxes.classes[rows[:, 0]] == boxes.classes[rows[:, 1]]
            usable = ~alike | ((rows[:, 0] != rows[:, 1]) & (rng.random(len(rows)) < 0.1))
            rows = rows[usable | same]
            some = np.unique(np.concatenate([some, rows]), axis=0)
        keep = rng.permutation(len(some))[:wanted]
        found = np.concatenate([found, some[keep]])
    return found[np.lexsort(found.T[::-1])]


class Quota(NamedTuple):
    """What a chunk shall have."""

    boxed: int
    boxes: int
    relations: int


class Files:
    """The CSV files of a split, open for writing."""

    def __init__(self, stack: ExitStack, folder: Path, split: str, compressed: bool) -> None:
        self._stack, self._folder, self._compressed = stack, folder, compressed
        short = "val" if split == "validation" else split
        start = "oidv6-train-images-with-labels" if split == "train" else f"{split}-images"
        self._names = {
            "images": f"{start}-with-rotation.csv",
            "human": f"oidv7-{short}-annotations-human-imagelabels.csv",
            "machine": f"oidv7-{short}-annotations-machine-imagelabels.csv",
            "boxes": f"{split}-annotations-bbox.csv",
            "relations": f"oidv6-{split}-annotations-vrd.csv",
        }
        self._writers: dict[str, pa_csv.CSVWriter] = {}
        self.rows = dict.fromkeys(self._names, 0)

    def write(self, kind: str, columns: Mapping[str, Any]) -> None:
        """Adds rows; the first ones say what the columns are called."""
        table = pa.table(dict(columns))
        if kind not in self._writers:
            self._writers[kind] = self._open(kind, table.schema)
        self._writers[kind].write_table(table)
        self.rows[kind] += len(table)

    def _open(self, kind: str, schema: pa.Schema) -> pa_csv.CSVWriter:
        path = self._folder / self._names[kind]
        sink: Any
        if self._compressed:
            zipped = gzip.GzipFile(f"{path}.gz", "wb", compresslevel=4, mtime=0)
            sink = self._stack.enter_context(zipped)
        else:
            sink = self._stack.enter_context(path.open("wb"))
        # A quoted header is right, too, but the published ones are not quoted.
        sink.write((",".join(schema.names) + "\n").encode())
        how = pa_csv.WriteOptions(include_header=False, quoting_style="none", batch_size=65_536)
        return self._stack.enter_context(pa_csv.CSVWriter(sink, schema, write_options=how))


class Chunk:
    """Some images of a split with everything that is said of them."""

    def __init__(
        self,
        rng: np.random.Generator,
        ids: pa.StringArray,
        topics: Topics,
        vocabulary: Vocabulary,
        quota: Quota,
    ) -> None:
        self._rng, self._ids, self._vocabulary = rng, ids, vocabulary
        self._topics, self._quota = topics, quota
        self._pairs = topics.draw(rng, len(ids))
        self._owners, self._classes = np.divmod(self._pairs, CLASSES)
        could = vocabulary.boxable[self._classes]
        images = np.unique(self._owners[could])
        chosen = np.zeros(len(ids), bool)
        chosen[rng.permutation(images)[: quota.boxed]] = True
        self._boxed = could & chosen[self._owners]

    def write(self, files: Files, split: str, full_columns: bool) -> None:
        """All rows of the chunk, by rising id."""
        files.write("images", image_columns(self._rng, self._ids, split, full_columns))
        self._write_labels(files)
        of_pair, corners = draw_boxes(self._rng, self._pairs[self._boxed], self._quota.boxes)
        owners, classes = self._owners[self._boxed][of_pair], self._classes[self._boxed][of_pair]
        boxes = Boxes(owners, classes, corners)
        self._write_boxes(files, boxes)
        self._write_relations(files, boxes)

    def _write_labels(self, files: Files) -> None:
        rng, pairs = self._rng, self._pairs
        forced = int(self._boxed.sum())
        rest = max(1, len(pairs) - forced)
        human = self._boxed | (rng.random(len(pairs)) < (HUMAN * len(pairs) - forced) / rest)
        machine = ~human | (rng.random(len(pairs)) < BOTH / HUMAN)
        absent = round(int(human.sum()) * ABSENT / (1 - ABSENT))
        classes = self._topics.everywhere(rng, round(absent * 1.12))
        missing = np.unique(rng.integers(len(self._ids), size=len(classes)) * CLASSES + classes)
        missing = np.setdiff1d(missing, pairs, assume_unique=True)[:absent]
        said = np.concatenate([pairs[human], missing])
        order = np.argsort(said, kind="stable")
        sources = np.where(rng.random(len(said)) < 0.8, 0, 1)
        who = pa.array(["verification", "crowdsource-verification"]).take(pa.array(sources))
        yes = np.repeat([1, 0], [int(human.sum()), len(missing)])[order]
        files.write("human", self._label_columns(said[order], who, pa.array(yes)))
        scores = np.round(0.5 + 0.1 * np.minimum(rng.geometric(0.35, int(machine.sum())) - 1, 4), 1)
        who = pa.repeat("machine", len(scores))
        files.write("machine", self._label_columns(pairs[machine], who, pa.array(scores)))

    def _label_columns(self, pairs: _Ints, source: pa.Array, scores: pa.Array) -> dict[str, Any]:
        owners, classes = np.divmod(pairs, CLASSES)
        return {
            "ImageID": self._ids.take(pa.array(owners)),
            "Source": source,
            "LabelName": self._mids(classes),
            "Confidence": scores,
        }

    def _mids(self, classes: _Ints) -> pa.StringArray:
        return self._vocabulary.mids.take(pa.array(classes))

    def _write_boxes(self, files: Files, boxes: Boxes) -> None:
        rng, number = self._rng, len(boxes.owners)
        learned = rng.random(number) < 0.1
        columns: dict[str, Any] = {
            "ImageID": self._ids.take(pa.array(boxes.owners)),
            "Source": pa.array(["xclick", "activemil"]).take(pa.array(learned.astype(np.int64))),
            "LabelName": self._mids(boxes.classes),
            "Confidence": np.ones(number, np.int64),
        }
        for i, name in enumerate(("XMin", "XMax", "YMin", "YMax")):
            columns[name] = boxes.corners[:, i]
        for name, often in zip(FLAGS, (0.6, 0.25, 0.06, 0.05, 0.01), strict=True):
            # Nobody looked at boxes that a model has drawn.
            columns[name] = np.where(learned, -1, rng.random(number) < often)
        files.write("boxes", columns)

    def _write_relations(self, files: Files, boxes: Boxes) -> None:
        found = draw_relations(self._rng, self._vocabulary, boxes, self._quota.relations)
        one, other, predicates, objects = found.T
        columns: dict[str, Any] = {
            "ImageID": self._ids.take(pa.array(boxes.owners[one])),
            "LabelName1": self._mids(boxes.classes[one]),
            "LabelName2": self._mids(objects),
        }
        for suffix, which in (("1", one), ("2", other)):
            for i, name in enumerate(("XMin", "XMax", "YMin", "YMax")):
                columns[f"{name}{suffix}"] = boxes.corners[which, i]
        columns["RelationshipLabel"] = pa.array([*PREDICATES, "is"]).take(pa.array(predicates))
        files.write("relations", columns)


def hex_ids(numbers: NDArray[np.uint64]) -> pa.StringArray:
    """Numbers as 16 hexadecimal digits each."""
    digits = np.array([f"{i:02x}" for i in range(256)], "S2")
    data = digits[numbers.astype(">u8").view(np.uint8)].tobytes()
    offsets = np.arange(0, 16 * len(numbers) + 1, 16, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(data))


def draw_ids(rng: np.random.Generator, start: int, stop: int, images: int) -> pa.StringArray:
    """Ids of images start to stop of a split with so many: different ones, rising, evenly wide."""
    low, high = (start << 64) // images, (stop << 64) // images - 1
    numbers = np.empty(0, np.uint64)
    while len(numbers) < stop - start:
        more = rng.integers(low, high, stop - start - len(numbers), np.uint64, endpoint=True)
        numbers = np.unique(np.concatenate([numbers, more]))
    return hex_ids(numbers)


def image_columns(
    rng: np.random.Generator, ids: pa.StringArray, split: str, full: bool
) -> dict[str, Any]:
    """The columns of a list of images, as published; see the module about empty ones."""
    number = len(ids)
    photo = _text(rng.integers(10**9, 10**10, number))
    secret = pc.utf8_slice_codeunits(hex_ids(rng.integers(0, 2**63, number, np.uint64)), 0, 10)
    server = _text(rng.integers(1000, 9000, number))
    farm = _text(rng.integers(1, 9, number))
    start = _joined("https://farm", farm, ".staticflickr.com/", server, "/", photo, "_", secret)
    turned = rng.choice(5, number, p=[0.93, 0.02, 0.005, 0.015, 0.03])
    columns = dict.fromkeys(IMAGE_COLUMNS, pa.repeat("", number))
    columns |= {
        "ImageID": ids,
        "Subset": pa.repeat(split, number),
        "OriginalURL": _joined(start, "_o.jpg"),
        "License": pa.repeat(LICENSE, number),
        "Rotation": pa.array(["0.0", "90.0", "180.0", "270.0", ""]).take(pa.array(turned)),
    }
    if full:
        people = _text(rng.integers(10**7, 10**7 + max(1, FULL // 50), number))
        profile = _joined("https://www.flickr.com/people/", people, "@N00/")
        columns |= {
            "OriginalLandingURL": _joined("https://www.flickr.com/photos/", people, "/", photo),
            "AuthorProfileURL": profile,
            "Author": _joined("Photographer ", people),
            "Title": _joined("DSC_", server),
            "OriginalSize": _text(rng.integers(10**5, 10**7, number)),
            "OriginalMD5": _joined(hex_ids(rng.integers(0, 2**63, number, np.uint64)), "Ag=="),
            "Thumbnail300KURL": _joined(start, "_z.jpg"),
        }
    return columns


def _text(numbers: NDArray[Any]) -> pa.StringArray:
    return pa.array(numbers).cast(pa.string())


def _joined(*parts: Any) -> pa.StringArray:
    return pc.binary_join_element_wise(*parts, "")


def quotas(images: int, split: str) -> tuple[int, Quota]:
    """Images of a split, and its boxes and relations; validation and test have boxes everywhere."""
    whole = sum(SPLITS.values())
    sizes = {name: round(images * part / whole) for name, part in SPLITS.items()}
    sizes["train"] = images - sizes["validation"] - sizes["test"]
    scale = images / FULL
    boxed = dict(sizes)
    small = sizes["validation"] + sizes["test"]
    boxed["train"] = max(0, round(BOXED * scale) - small)
    part = boxed[split] / max(1, sum(boxed.values()))
    return sizes[split], Quota(
        boxed[split], round(BOXES * scale * part), round(RELATIONS * scale * part)
    )


def write_split(
    folder: Path,
    split: str,
    images: int,
    made: tuple[Topics, Vocabulary],
    options: argparse.Namespace,
) -> dict[str, int]:
    """Writes the files of a split; how many rows each has."""
    number, whole = quotas(images, split)
    with ExitStack() as stack:
        files = Files(stack, folder, split, options.gzip)
        for start in range(0, number, CHUNK):
            stop = min(start + CHUNK, number)
            rng = np.random.default_rng([SEED, 2, list(SPLITS).index(split), start])
            part = Quota(*(n * stop // number - n * start // number for n in whole))
            ids = draw_ids(rng, start, stop, number)
            Chunk(rng, ids, *made, part).write(files, split, options.full_columns)
            measuring.note(f"{split}: {stop:,} of {number:,} images")
    return files.rows


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the files go; made where it is not there")
    parser.add_argument("--images", type=int, default=FULL, help=f"default {FULL:,}")
    parser.add_argument("--gzip", action="store_true", help="write .csv.gz")
    parser.add_argument("--full-columns", action="store_true", help="fill every image column")
    options = parser.parse_args()
    if options.images < 1:
        parser.error(f"--images {options.images}: expected 1 or more")
    started = time.monotonic()
    options.folder.mkdir(parents=True, exist_ok=True)
    made = Topics(), Vocabulary()
    made[1].write(options.folder)
    total: dict[str, int] = {}
    for split in SPLITS:
        for kind, rows in write_split(options.folder, split, options.images, made, options).items():
            total[kind] = total.get(kind, 0) + rows
    measuring.note(f"done in {time.monotonic() - started:.0f} s")
    print(json.dumps(total))


if __name__ == "__main__":
    main()
