"""The drawn scenes that ship are what they look like."""

import numpy as np
import pytest

from vistadex.testing import DRAWN_SCENES, DrawnScene


def test_a_box_reaches_over_all_places_of_its_letter() -> None:
    scene = DrawnScene("x", "..aa.\n.bab.\n.b...", frozenset())
    assert scene.letters == ("a", "b")
    assert scene.size_wh == (5, 3)
    np.testing.assert_array_equal(scene.boxes_xyxy, [[2, 0, 4, 2], [1, 1, 4, 3]])


@pytest.mark.parametrize("scene", DRAWN_SCENES, ids=lambda scene: scene.name)
def test_a_scene_is_a_rectangle_and_speaks_of_boxes_in_it(scene: DrawnScene) -> None:
    assert {len(row) for row in scene.drawing.split()} == {scene.size_wh[0]}
    for text in scene.related:
        subject, _, object_ = text.split()
        assert {subject, object_} <= set(scene.letters)


def test_scenes_have_names_of_their_own() -> None:
    assert len({scene.name for scene in DRAWN_SCENES}) == len(DRAWN_SCENES)
