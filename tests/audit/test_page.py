"""The frontier: names stand apart where points crowd."""

import re

from ageveil.evaluation import plots


def test_names_of_near_points_stand_apart():
    def figure(value):
        return {"value": value, "low": value - 2, "high": value + 2}

    near = {"mosaic": (93, 97), "mask": (92, 96.5), "grid": (93, 96.6), "dp-pix": (92.5, 97.2)}
    points = [(name, figure(x), figure(y)) for name, (x, y) in near.items()]
    svg = plots.frontier_plot([("original", figure(98), figure(100)), *points])
    places = {}
    for tag, name in re.findall(r"<text ([^>]*)>([a-z-]+)</text>", svg):
        if name in near and name not in places:  # the legend comes last
            x, y = map(
                float,
                re.search(r"translate\(([\d.]+) ([\d.]+)\)|x=\"([\d.]+)\" y=\"([\d.]+)\"", tag).group(3, 4)
                if 'x="' in tag
                else re.search(r"translate\(([\d.]+) ([\d.]+)\)", tag).groups(),
            )
            width = 4 * len(name)
            places[name] = (x - width, y, x) if "end" in tag else (x, y, x + width)
    assert set(places) == set(near)
    boxes = list(places.values())
    for index, (left, y, right) in enumerate(boxes):
        for other_left, other_y, other_right in boxes[index + 1 :]:
            assert abs(y - other_y) > 8 or right < other_left or other_right < left
