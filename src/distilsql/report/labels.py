"""Labels for points of a figure, placed so that none covers another, a point, an error bar or the frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

# Where a label may stand, as (distance in points, angle): near first, beside before above.
_ANGLES = (0, 180, 35, -35, 145, -145, 90, -90, 60, -60, 120, -120)
_DISTANCES = (9.0, 14, 20, 28, 38, 50, 64, 80, 100, 124, 152, 184, 220)
_LEADER_FROM = 28  # points; a label this far from its point gets a line to it
_GAP = 2.0  # pixels between a label and anything else


@dataclass(frozen=True)
class LabelledPoint:
    """A point in data coordinates, with the ends of its error bar if it has one."""

    text: str
    x: float
    y: float
    color: str
    bar: tuple[float, float] | None = None


def place_labels(axes: Axes, points: Sequence[LabelledPoint], *, font_size: float = 10) -> list[Annotation]:
    """Annotate every point. Call it last, when the limits of `axes` are final: its layout is fixed here.

    Labels are placed one by one from the top down, each at the nearest free place around its point. In a figure so
    crowded that a label has no free place, it stands where it covers least.
    """
    _fix_layout(axes)
    frame = axes.get_window_extent()
    taken = [box for point in points for box in _obstacles(axes, point)]
    taken += [artist.get_window_extent().padded(_GAP) for artist in (*axes.texts, *_level_lines(axes))]
    annotations = []
    for point in sorted(points, key=lambda point: -point.y):
        annotation = axes.annotate(
            point.text,
            (point.x, point.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=point.color,
            fontsize=font_size,
            fontweight="bold",
            # A thin line from the edge of the label to the point; shown only where the label stands far off.
            arrowprops={
                "arrowstyle": "-",
                "color": point.color,
                "alpha": 0.5,
                "linewidth": 0.8,
                "shrinkA": 0,
            },
        )
        taken.append(_settle(annotation, _anchor(axes, point), frame, taken))
        annotations.append(annotation)
    return annotations


def place_line_label(
    axes: Axes, text: str, level: float, points: Sequence[LabelledPoint], color: str
) -> None:
    """Draw a dashed line at `level` and name it where no point or error bar is: at one of its ends or along it."""
    axes.axhline(level, color=color, linestyle=(0, (5, 4)), linewidth=1.3)
    label = axes.annotate(
        text,
        (0.5, level),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        va="center",
        color=color,
        fontsize=9,
    )
    _fix_layout(axes)
    frame, size = axes.get_window_extent(), label.get_window_extent()
    obstacles = [box for point in points for box in _obstacles(axes, point)]
    half = size.width / 2 / frame.width + 0.01
    places = [(half + (1 - 2 * half) * i / 12, offset) for i in range(12, -1, -1) for offset in (9, -9)]

    def cost(place: tuple[float, float]) -> float:
        label.xy = (place[0], level)
        label.set_position((0, place[1]))
        return _cost(label.get_window_extent(), frame, obstacles)

    cost(min(places, key=cost))  # leaves the label at the best place


def _fix_layout(axes: Axes) -> None:
    """Lay the figure out once and for all, so that what is measured stays true."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    figure.set_layout_engine("none")


def _level_lines(axes: Axes) -> list[Line2D]:
    """Lines right across the axes."""
    return [line for line in axes.get_lines() if line.get_transform() == axes.get_yaxis_transform()]


def _anchor(axes: Axes, point: LabelledPoint) -> tuple[float, float]:
    x, y = axes.transData.transform((point.x, point.y))
    return float(x), float(y)


def _obstacles(axes: Axes, point: LabelledPoint) -> list[Bbox]:
    """The marker and the error bar, in pixels."""
    x, y = _anchor(axes, point)
    boxes = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6)]
    if point.bar is not None:
        (_, low), (_, high) = (axes.transData.transform((point.x, end)) for end in point.bar)
        boxes.append(Bbox.from_extents(x - 4, low, x + 4, high))
    return boxes


def _settle(annotation: Annotation, anchor: tuple[float, float], frame: Bbox, taken: Sequence[Bbox]) -> Bbox:
    """Move the label to the best place around `anchor`; returns the box it takes, in pixels."""
    figure = annotation.get_figure(root=True)
    assert figure is not None
    pixels_per_point = figure.dpi / 72
    size = Text.get_window_extent(annotation)  # without its leader
    best: tuple[float, float, float] = (0.0, 0.0, 0.0)
    best_cost = math.inf
    for distance in _DISTANCES:
        for angle in _ANGLES:
            away = distance * pixels_per_point
            dx = math.cos(math.radians(angle)) * (away + size.width / 2)
            dy = math.sin(math.radians(angle)) * (away + size.height / 2)
            cost = _cost(_box_around(anchor[0] + dx, anchor[1] + dy, size), frame, taken)
            if cost < best_cost:
                best, best_cost = (dx, dy, distance), cost
        if best_cost == 0:
            break
    dx, dy, distance = best
    annotation.set_position((dx / pixels_per_point, dy / pixels_per_point))
    assert annotation.arrow_patch is not None
    annotation.arrow_patch.set_visible(distance >= _LEADER_FROM)
    return _box_around(anchor[0] + dx, anchor[1] + dy, size)


def _box_around(x: float, y: float, size: Bbox) -> Bbox:
    half_width, half_height = size.width / 2 + _GAP, size.height / 2 + _GAP
    return Bbox.from_extents(x - half_width, y - half_height, x + half_width, y + half_height)


def _cost(box: Bbox, frame: Bbox, taken: Sequence[Bbox]) -> float:
    """Covered area in square pixels; what lies outside the frame would be cut off and counts double."""
    inside = Bbox.intersection(box, frame)
    outside = _area(box) - (_area(inside) if inside else 0.0)
    covered = sum(_area(shared) for other in taken if (shared := Bbox.intersection(box, other)))
    return covered + 2 * outside


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
