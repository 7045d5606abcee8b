"""Model cards: JSON both ways, and what is refused."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistadex.errors import ModelError
from vistadex.models.cards import PRESETS, ModelCard, Preprocessing
from vistadex.models.coco import COCO_CATEGORY_IDS, COCO_CLASSES
from vistadex.models.heads import HEADS, task_of
from vistadex.models.known import KNOWN
from vistadex.models.ports import Port, Signature
from vistadex.registry import lookup

numbers = st.floats(-1e6, 1e6)
triples = st.tuples(numbers, numbers, numbers)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
inputs = st.builds(
    Preprocessing,
    size_wh=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    color=st.sampled_from(["RGB", "BGR"]),
    resize=st.sampled_from(["letterbox-top-left", "stretch", "resize-shorter-center-crop"]),
    scale=st.floats(1e-6, 10),
    mean=triples,
    std=triples.filter(all),
    crop=st.floats(0.1, 1),
    pad_value=st.integers(0, 255),
    stride=st.integers(1, 128),
    dynamic=st.booleans(),
)


@st.composite
def cards(draw: st.DrawFn) -> ModelCard:
    head = draw(st.sampled_from(sorted(HEADS)))
    task = task_of(head)
    assert task is not None
    names = st.lists(texts.filter(str.strip), min_size=1, max_size=5)
    return ModelCard(
        name=draw(st.text(string.ascii_letters + "é-_1", min_size=1, max_size=20)),
        task=task,
        head=head,
        classes=() if task == "embedder" else tuple(draw(names)),
        input=draw(inputs),
        license=draw(texts),
        source=draw(texts),
        metrics=draw(st.dictionaries(texts, numbers, max_size=3)),
        derived_from=draw(texts),
    )


@given(cards())
def test_a_card_survives_json(card: ModelCard) -> None:
    assert ModelCard.from_json(card.to_json(), "x.json") == card
    assert ModelCard.from_dict(card.to_dict(), "x.json") == card


def changed(**changes: object) -> str:
    values = KNOWN["695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14"].to_dict()
    for name, value in changes.items():
        where: dict = values if name in values else values["input"]
        if value is None:
            del where[name]
        else:
            where[name] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "a/b"}, "name"),
        ({"name": "x.onnx"}, "name"),
        ({"name": 7}, "name"),
        ({"task": "oracle"}, "task"),
        ({"task": None}, "task"),
        ({"head": "yolo99"}, "head"),
        ({"head": "logits"}, "head"),
        ({"classes": []}, "classes"),
        ({"classes": ["cat", ""]}, "classes"),
        ({"classes": "cat"}, "classes"),
        ({"classes": [1]}, "classes"),
        ({"metrics": {"map": "good"}}, "metrics"),
        ({"metrics": [1]}, "metrics"),
        ({"input": None}, "input"),
        ({"color": "GRB"}, "color"),
        ({"color": None}, "color"),
        ({"size_wh": [416]}, "size_wh"),
        ({"size_wh": [416, 0]}, "size_wh"),
        ({"size_wh": [416, 4.5]}, "size_wh"),
        ({"size_wh": [True, True]}, "size_wh"),
        ({"mean": [0, 0]}, "mean"),
        ({"std": [1, 1, 0]}, "std"),
        ({"scale": 0}, "scale"),
        ({"scale": "1"}, "scale"),
        ({"scale": 10**400}, "scale"),
        ({"resize": "pad"}, "resize"),
        ({"crop": 2}, "crop"),
        ({"pad_value": 300}, "pad_value"),
        ({"pad_value": True}, "pad_value"),
        ({"stride": 0}, "stride"),
        ({"dynamic": "yes"}, "dynamic"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(changes: dict[str, object], field: str) -> None:
    with pytest.raises(ModelError) as caught:
        ModelCard.from_json(changed(**changes), "cards/a.json")
    assert str(caught.value).startswith("cards/a.json: ")
    assert field in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"card"', "[" * 100_000, b"\xff\xfe\x00"])
def test_text_that_is_no_card_is_an_error_that_names_the_file(text: str | bytes) -> None:
    with pytest.raises(ModelError, match=r"^a\.json: "):
        ModelCard.from_json(text, "a.json")


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ModelError, match="licence: expected no such field; known are name"):
        ModelCard.from_dict({"licence": "MIT"}, "a.json")


def test_every_head_in_the_table_can_be_imported_and_names_its_preset() -> None:
    for name in HEADS:
        head = lookup(HEADS, name, "model head")()
        assert head.preset in (*PRESETS, None)
        picture = Port("images", "float32", (1, 3, 64, 64))
        with pytest.raises(ValueError, match=r"output|input"):
            head.fit(Signature((picture,), (Port("nothing", "float32", (1,)),)))


def test_coco_has_80_classes_and_official_ids() -> None:
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == len(COCO_CATEGORY_IDS) == 80
    ids = dict(zip(COCO_CLASSES, COCO_CATEGORY_IDS, strict=True))
    assert (ids["person"], ids["stop sign"], ids["toothbrush"]) == (1, 13, 90)
