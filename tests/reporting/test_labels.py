from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tersor.reporting.labels import CORNERS, _box, _overlap, place


def test_a_lone_name_stands_at_the_upper_right():
    assert place([(50, 50, "1")], 300) == [CORNERS[0]]


def test_a_name_at_the_right_end_stands_on_the_left():
    assert place([(295, 50, "original")], 300)[0][0] < 0


def test_neighbours_do_not_cover_each_other():
    points = [(100, 100, "7"), (104, 100, "8"), (97, 100, "9")]
    boxes = [
        _box(x + dx, y + dy, t, dx) for (x, y, t), (dx, dy) in zip(points, place(points, 300), strict=True)
    ]
    assert all(_overlap(one, other) == 0 for one, other in combinations(boxes, 2))


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(0, 340), st.text(max_size=8)), max_size=12))
def test_every_point_gets_a_corner_and_equal_points_give_equal_corners(points):
    corners = place(points, 900)
    assert len(corners) == len(points)
    assert set(corners) <= set(CORNERS)
    assert place(points, 900) == corners
