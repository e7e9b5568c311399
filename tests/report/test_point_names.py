"""Names of points: readable however close the points are."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from unlearun.report.figures import make_figure
from unlearun.report.point_names import name_points


def drawn(points: dict[str, tuple[float, float]]):
    figure, axes = make_figure(6.2, 4.4)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for x, y in points.values():
        axes.errorbar(x, y, 0.02, 0.1, "o")
    name_points(axes, points)
    figure.draw_without_rendering()
    names = [text for text in axes.texts if text.get_text()]
    return axes, {text.get_text(): text.get_window_extent() for text in names}


@pytest.mark.parametrize("apart", [0.0, 0.01, 0.03])
def test_names_of_neighbours_lie_beside_each_other_and_in_the_picture(apart):
    points = {f"method-{at}/run/1": (0.9 + apart * (at % 3), 0.5 + (apart + 0.001) * at) for at in range(8)}
    axes, names = drawn(points)
    assert names.keys() == points.keys()
    assert [pair for pair in combinations(names, 2) if names[pair[0]].overlaps(names[pair[1]])] == []
    for extent in names.values():
        assert axes.bbox.x0 <= extent.x0 <= extent.x1 <= axes.bbox.x1 + 1


def test_many_names_lie_beside_each_other_too():
    draw = random.Random(0)
    points = {f"method-{at}": (draw.gauss(0.7, 0.1), draw.choice((0.1, 0.15, 0.5))) for at in range(28)}
    _, names = drawn(points)
    assert [pair for pair in combinations(names, 2) if names[pair[0]].overlaps(names[pair[1]])] == []


def test_what_is_at_the_same_place_shares_a_name_and_a_dollar_is_a_dollar():
    _, names = drawn({"dpo": (0.5, 0.5), "idk_dpo": (0.5, 0.5), "$x$": (0.2, 0.2)})
    assert names.keys() == {"dpo, idk_dpo", "$x$"}
    wide = names["$x$"].width
    _, names = drawn({"x": (0.2, 0.2)})
    assert wide > 2 * names["x"].width


def test_the_same_points_are_named_alike():
    points = {"a": (0.5, 0.5), "b": (0.51, 0.5), "c": (0.5, 0.51)}
    assert str(drawn(points)[1]) == str(drawn(points)[1])
