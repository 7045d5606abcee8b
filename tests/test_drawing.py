"""Boxes drawn into pictures: the right color, dashed for people, legible, never out of bounds."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from vistadex.catalog import FoundBox
from vistadex.drawing import draw_boxes, hue
from vistadex.records import Pixels

GREY = np.full((200, 300, 3), 128, np.uint8)


def box(name: str = "dog", model: str = "net", corners: tuple[float, ...] = ()) -> FoundBox:
    x0, y0, x1, y1 = corners or (40.0, 50.0, 160.0, 150.0)
    return FoundBox(name, 0.5, (x0, y0, x1, y1), model)


def hues(pixels: Pixels) -> list[int]:
    """Hues in degrees of colored pixels."""
    colors = {tuple(one) for one in pixels.reshape(-1, 3).tolist()}
    return [
        round(360 * colorsys.rgb_to_hls(*(part / 255 for part in one))[0])
        for one in colors
        if max(one) - min(one) > 60
    ]


def test_a_box_has_the_hue_of_its_class_and_the_picture_is_kept() -> None:
    drawn = draw_boxes(GREY, [box()])
    assert (GREY == 128).all()
    edge = drawn[60:140, 40]
    assert hues(edge)
    assert all(abs(one - hue("dog")) <= 2 for one in hues(edge))
    assert (drawn[70:130, 60:140] == 128).all()


def test_boxes_of_people_are_dashed_and_those_of_models_are_not() -> None:
    def colored(model: str, people: tuple[str, ...]) -> int:
        bottom = draw_boxes(GREY, [box(model=model)], people)[148:150, 40:160].astype(int)
        return int(((bottom.max(2) - bottom.min(2)) > 60).any(0).sum())

    assert colored("net", ("ann",)) >= 118
    assert 40 <= colored("ann", ("ann",)) <= 80
    assert colored("human", ()) >= 118


@pytest.mark.parametrize(
    "corners",
    [
        (0.0, 0.0, 300.0, 200.0),
        (-50.0, -50.0, 400.0, 300.0),
        (299.6, 199.6, 300.0, 200.0),
        (10.25, 10.75, 10.25, 10.75),
        (10.4, 10.4, 10.6, 10.6),
        (290.0, 0.0, 299.0, 3.0),
    ],
)
@pytest.mark.parametrize("model", ["human", "net"])
def test_odd_boxes_are_drawn_as_far_as_they_are_inside(
    corners: tuple[float, ...], model: str
) -> None:
    drawn = draw_boxes(GREY, [box("a very long name " * 5, model, corners)])
    assert drawn.shape == GREY.shape
    assert (drawn != 128).any()


def test_labels_of_boxes_over_each_other_do_not_cover_each_other() -> None:
    same = [box("dog"), box("cat"), box("cow")]
    drawn = draw_boxes(GREY, same)
    for one in same:
        near = [shade for shade in hues(drawn) if abs(shade - hue(one.class_name)) <= 2]
        assert near, one.class_name
    light = drawn.astype(int)
    labels = ((light.max(2) - light.min(2)) > 60).sum()
    single = draw_boxes(GREY, same[:1]).astype(int)
    assert labels > 1.5 * ((single.max(2) - single.min(2)) > 60).sum()


def test_a_picture_without_boxes_stays_as_it_is() -> None:
    assert (draw_boxes(GREY, []) == GREY).all()
