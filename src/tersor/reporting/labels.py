"""Where the names of points stand, so that they do not cover each other."""

from collections.abc import Sequence

#: Corners of a point in the order of preference: horizontal and vertical offset of the text, in pixels.
CORNERS = ((10, -8), (10, 10), (-10, -8), (-10, 10))
#: Room that a character and a line take, and half the size of a mark, in pixels.
_WIDE, _HIGH, _MARK = 8.0, 13.0, 7.0

Box = tuple[float, float, float, float]


def place(points: Sequence[tuple[float, float, str]], width: float) -> list[tuple[int, int]]:
    """Choose a corner for the name of each point, one after the other, each against all marks and names before it.

    Args:
        points: horizontal and vertical position in pixels, and the text.
        width: right end of the plot, which no name should cross.

    Returns:
        For each point one of `CORNERS`: the first where its name covers nothing, else the one where it covers least.

    Example:
        >>> place([(50, 50, "1"), (61, 44, "2")], 300)
        [(10, 10), (10, -8)]
    """
    taken = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y, _ in points]
    corners = []
    for number, (x, y, text) in enumerate(points):
        others = [box for place, box in enumerate(taken) if place != number]
        boxes = [_box(x + dx, y + dy, text, dx) for dx, dy in CORNERS]
        costs = [sum(_overlap(box, other) for other in others) + _outside(box, width) for box in boxes]
        best = costs.index(min(costs))
        corners.append(CORNERS[best])
        taken.append(boxes[best])
    return corners


def _box(x: float, y: float, text: str, dx: int) -> Box:
    long = _WIDE * len(text)
    left = x if dx > 0 else x - long
    return (left, y - _HIGH / 2, left + long, y + _HIGH / 2)


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _outside(box: Box, width: float) -> float:
    return _HIGH * (max(0.0, -box[0]) + max(0.0, box[2] - width))
