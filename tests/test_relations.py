"""Relations that follow from boxes: drawn scenes, inverses, and what does not change them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vistadex import relations
from vistadex.errors import UsageError
from vistadex.records import NOMINAL_SIDE, Relation
from vistadex.relations import PREDICATES, RULES, derive, derive_counted
from vistadex.testing import DRAWN_SCENES, DrawnScene

ROOT = Path(__file__).resolve().parent.parent
CONVERSE = {name: rule.converse for name, rule in RULES.items() if rule.converse}
CONVERSE |= {other: name for name, other in CONVERSE.items()}
TINY = 1e-9


def related(boxes: Any, names: Sequence[str] | None = None, **options: Any) -> dict[str, float]:
    """Relations as text, with their scores; boxes are named by their numbers."""
    known = [str(i) for i in range(len(boxes))] if names is None else names
    scores = options.pop("scores", np.ones(len(boxes)))
    options = {"size_wh": (0, 0), "min_score": TINY, "at_most": 10**6} | options
    found = derive(np.array(boxes, float), known, scores, **options)
    return {f"{one.subject} {one.predicate} {one.object}": one.score for one in found}


def of_scene(scene: DrawnScene) -> set[str]:
    return set(related(scene.boxes_xyxy, scene.letters, size_wh=scene.size_wh, min_score=0.5))


@pytest.mark.parametrize("scene", DRAWN_SCENES, ids=lambda scene: scene.name)
def test_a_drawn_scene_has_these_relations_and_no_others(scene: DrawnScene) -> None:
    assert of_scene(scene) == scene.related


def test_every_predicate_is_drawn_and_is_absent_from_some_scene() -> None:
    for name in PREDICATES:
        drawn = [any(f" {name} " in one for one in scene.related) for scene in DRAWN_SCENES]
        assert any(drawn), name
        assert not all(drawn), name


@st.composite
def some_boxes(draw: st.DrawFn, most: int = 6) -> list[tuple[int, int, int, int]]:
    corner, side = st.integers(0, 200), st.integers(1, 120)
    some = draw(st.lists(st.tuples(corner, corner, side, side), max_size=most))
    return [(x, y, x + width, y + height) for x, y, width, height in some]


@given(some_boxes())
def test_each_relation_has_its_converse_with_the_same_score(boxes: Any) -> None:
    found = related(boxes)
    for text, score in found.items():
        subject, name, object_ = text.split()
        if name in CONVERSE:
            assert found[f"{object_} {CONVERSE[name]} {subject}"] == score


@given(some_boxes())
def test_a_symmetric_relation_is_given_once(boxes: Any) -> None:
    found = related(boxes)
    for text in found:
        subject, name, object_ = text.split()
        if RULES[name].symmetric:
            assert subject < object_
            assert f"{object_} {name} {subject}" not in found


@given(some_boxes())
def test_nothing_is_related_to_itself_and_scores_are_above_0_to_1(boxes: Any) -> None:
    for text, score in related(boxes).items():
        subject, _, object_ = text.split()
        assert subject != object_
        assert 0 < score <= 1


@given(some_boxes())
def test_two_boxes_are_never_on_above_or_left_of_each_other(boxes: Any) -> None:
    found = related(boxes, min_score=0.5)
    for text in found:
        subject, name, object_ = text.split()
        if not RULES[name].symmetric:
            assert f"{object_} {name} {subject}" not in found


@given(
    some_boxes(),
    st.integers(-500, 500),
    st.integers(-500, 500),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
)
def test_moving_and_stretching_a_picture_changes_nothing(
    boxes: Any, dx: int, dy: int, wide: float, high: float
) -> None:
    array = np.array(boxes, float).reshape(-1, 4)
    before = related(array)
    after = related((array + np.array([dx, dy] * 2)) * [wide, high, wide, high])
    for text in before.keys() | after.keys():
        assert after.get(text, 0) == pytest.approx(before.get(text, 0), abs=1e-6)


@given(some_boxes())
def test_a_mirrored_picture_exchanges_left_and_right_alone(boxes: Any) -> None:
    array = np.array(boxes, float).reshape(-1, 4)
    before = related(array)
    swap = {"left_of": "right_of", "right_of": "left_of"}
    expected = {re.sub("left_of|right_of", lambda m: swap[m[0]], t): s for t, s in before.items()}
    after = related(array[:, [2, 1, 0, 3]] * [-1, 1, -1, 1])
    assert after == pytest.approx(expected)


@given(some_boxes(), st.integers(1, 8))
def test_fewer_places_keep_the_best_and_say_what_is_left_out(boxes: Any, places: int) -> None:
    array = np.array(boxes, float).reshape(-1, 4)
    names, sure = [f"{i}" for i in range(len(array))], np.ones(len(array))
    every = derive(array, names, sure, size_wh=(0, 0), at_most=10**6)
    some = derive_counted(array, names, sure, size_wh=(0, 0), at_most=places)
    assert some.relations == every[:places]
    assert some.left_out == len(every) - len(some.relations)


@given(some_boxes(), st.data(), st.integers(1, 8))
def test_of_few_places_each_kind_has_one_before_any_has_two(
    boxes: Any, data: Any, places: int
) -> None:
    array = np.array(boxes, float).reshape(-1, 4)
    names = data.draw(st.lists(st.sampled_from("ab"), min_size=len(array), max_size=len(array)))
    sure = np.ones(len(array))
    every = derive(array, names, sure, size_wh=(0, 0), at_most=10**6)
    some = derive(array, names, sure, size_wh=(0, 0), at_most=places)
    best = list({kind(one): one for one in reversed(every)}.values())[::-1]
    assert {kind(one) for one in best} == {kind(one) for one in every}
    if len(best) >= places:
        assert len({kind(one) for one in some}) == places
        assert min(one.score for one in some) >= sorted(one.score for one in best)[-places]
    else:
        assert {kind(one) for one in some} == {kind(one) for one in every}
    places_of = [every.index(one) for one in some]
    assert len(some) == min(places, len(every))
    assert places_of == sorted(places_of)


def kind(one: Relation) -> tuple[str, str, str]:
    return one.subject, one.predicate, one.object


@given(some_boxes(), st.randoms())
def test_the_order_of_boxes_changes_no_score(boxes: Any, random: Any) -> None:
    order = list(range(len(boxes)))
    random.shuffle(order)
    found = related([boxes[i] for i in order], [str(i) for i in order])
    assert found == related(boxes)


CUP, TABLE = (40.0, 10.0, 60.0, 30.0), (10.0, 30.0, 100.0, 50.0)


def test_a_relation_has_the_names_and_the_boxes_it_was_given() -> None:
    found = derive(
        np.array([CUP, TABLE]), ["cup", "table"], np.array([0.9, 0.8]), size_wh=(200, 100)
    )
    on = next(one for one in found if one.predicate == "on")
    assert on == Relation("cup", "on", "table", CUP, TABLE, pytest.approx(0.7))


def test_equal_scores_stand_in_the_order_of_predicates_subjects_and_objects() -> None:
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)]
    found = list(related(boxes, predicates=["left_of", "next_to"], scores=np.full(3, 0.3)))
    assert found == ["0 left_of 1", "0 left_of 2", "1 left_of 2", "0 next_to 1", "1 next_to 2"]


def test_a_relation_is_no_surer_than_its_boxes() -> None:
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10)]
    (score,) = related(boxes, predicates=["left_of"], scores=np.array([0.9, 0.55])).values()
    assert score == 0.55
    assert related(boxes, scores=np.array([0.9, 0.45]), min_score=0.5) == {}


def test_a_symmetric_relation_has_its_classes_in_alphabetical_order() -> None:
    boxes = [(0, 0, 10, 10), (12, 0, 22, 10)]
    assert "dog next_to person" in related(boxes, ["person", "dog"])
    assert "dog next_to person" in related(boxes, ["dog", "person"])


def test_of_one_class_the_first_box_is_the_subject_of_a_symmetric_relation() -> None:
    boxes = np.array([(12.0, 0, 22, 10), (0, 0, 10, 10)])
    (one,) = derive(boxes, ["dog", "dog"], np.ones(2), size_wh=(0, 0), predicates=["next_to"])
    assert one.subject_xyxy == (12, 0, 22, 10)


def test_one_thing_with_two_names_has_no_relation_with_itself() -> None:
    assert related([(0, 0, 100, 100), (1, 0, 100, 100)], ["person", "woman"]) == {}
    assert related([(0, 0, 100, 100), (0, 0, 100, 80)], ["person", "shirt"]) != {}


@pytest.mark.parametrize(
    "bad",
    [
        (5, 5, 5, 9),
        (5, 9, 9, 5),
        (float("nan"), 0, 9, 9),
        (0, 0, float("inf"), 9),
        (300, 0, 400, 50),
    ],
)
def test_a_box_without_an_area_in_the_picture_has_no_relations(bad: Any) -> None:
    boxes = np.array([CUP, TABLE, bad])
    found = derive_counted(boxes, ["cup", "table", "bad"], np.ones(3), size_wh=(200, 100))
    assert found.relations
    assert "bad" not in {name for one in found.relations for name in (one.subject, one.object)}
    assert found.boxes_left_out == 1


def test_boxes_are_cut_to_the_picture_but_given_as_they_were() -> None:
    wide = (-900.0, 30.0, 100.0, 50.0)
    found = derive(np.array([CUP, wide]), ["cup", "table"], np.ones(2), size_wh=(200, 100))
    assert ("on", CUP, wide) in {(r.predicate, r.subject_xyxy, r.object_xyxy) for r in found}


def test_fractions_give_the_same_relations_as_pixels() -> None:
    for scene in DRAWN_SCENES:
        wide, high = scene.size_wh
        fractions = scene.boxes_xyxy / [wide, high, wide, high] * NOMINAL_SIDE
        found = related(
            fractions, scene.letters, size_wh=(NOMINAL_SIDE, NOMINAL_SIDE), min_score=0.5
        )
        assert set(found) == scene.related


def test_of_a_crowd_only_the_surest_boxes_are_looked_at() -> None:
    number = relations.MOST_BOXES + 7
    boxes = np.array([(20.0 * i, 0, 20 * i + 10, 10) for i in range(number)])
    scores = np.linspace(0.6, 0.9, number)
    names = [str(i) for i in range(number)]
    found = derive_counted(boxes, names, scores, size_wh=(0, 0), predicates=["next_to"])
    assert found.boxes_left_out == 7
    assert len(found.relations) == relations.MOST_RELATIONS
    assert found.left_out > 0
    assert min(int(one.subject) for one in found.relations) >= 7


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_boxes_have_no_relations(number: int) -> None:
    assert related(np.ones((number, 4)) * [0, 0, 5, 5]) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"predicates": ["onto"]}, "unknown predicate 'onto'; known are: on, under"),
        ({"predicates": []}, "no predicate; known are: on"),
        ({"min_score": 0.0}, "min_score=0.0, at_most=1000000: expected above 0 to 1, 1 or more"),
        ({"min_score": float("nan")}, "min_score=nan"),
        ({"at_most": 0}, "at_most=0: expected"),
        ({"names": ["cup"]}, "2 boxes, 1 class names and 2 scores: expected as many of each"),
    ],
)
def test_what_can_not_be_meant_is_refused(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        related([CUP, TABLE], **options)


def test_other_definitions_have_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = relations.definitions_hash()
    assert before == relations.definitions_hash()
    assert re.fullmatch("[0-9a-f]{64}", before)
    monkeypatch.setattr(relations, "VERSION", relations.VERSION + 1)
    assert relations.definitions_hash() != before


def test_every_predicate_and_measure_is_documented_with_its_limits() -> None:
    page = (ROOT / "docs" / "relations.md").read_text(encoding="utf-8")
    for name in PREDICATES:
        assert f"`{name}`" in page, name
    for rule in RULES.values():
        for one in rule.conditions:
            sign = "≥" if one.reach > 0 else "≤"
            limit = f"{one.measure} {sign} {one.limit:g}"
            reach = f"± {abs(one.reach):g}"
            assert f"`{limit} {reach}`" in page, (limit, reach)
