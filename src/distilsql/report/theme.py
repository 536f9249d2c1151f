"""Colours of figures and page, for light and dark; and the look that every figure shares."""

import io
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from distilsql.distill.methods import METHODS


@dataclass(frozen=True)
class Theme:
    """`lines` holds one colour per method, told apart from its neighbours and readable on `background`."""

    name: str
    background: str
    text: str
    faint: str
    grid: str
    lines: tuple[str, ...]
    phases: tuple[str, ...]


LIGHT = Theme(
    name="light",
    background="#ffffff",
    text="#1c2430",
    faint="#5d6878",
    grid="#e3e7ee",
    lines=(
        "#4b5563",
        "#0b7a75",
        "#1d5fbf",
        "#9a6700",
        "#7a5195",
        "#c2410c",
        "#b5179e",
        "#3f7d20",
        "#d00036",
        "#a8577e",
        "#00708f",
    ),
    phases=("#9aa5b5", "#e08a1e", "#7a5195", "#1d6fbf", "#3f9a57", "#c2557a", "#5d6878"),
)
DARK = Theme(
    name="dark",
    background="#14181f",
    text="#e6eaf0",
    faint="#9aa5b5",
    grid="#2b323d",
    lines=(
        "#b8c1cf",
        "#4fd1c5",
        "#7db3ff",
        "#e3b341",
        "#c9a3e6",
        "#ff9f6b",
        "#f08fe0",
        "#8fd06a",
        "#ff7a90",
        "#e3a6c4",
        "#56c8ea",
    ),
    phases=("#77839a", "#f0a94a", "#b08ad0", "#5ba0ea", "#6cc183", "#e08aa5", "#9aa5b5"),
)
# Shape and size in points: some shapes need more room to look as large.
MARKERS = (
    ("o", 8), ("s", 7), ("^", 9), ("D", 7), ("v", 9), ("P", 9), ("X", 9), ("h", 9), ("*", 14), ("<", 9), (">", 9),
)  # fmt: skip


def method_style(method: str, theme: Theme) -> tuple[str, str, int]:
    """Colour, marker and the marker's size: a method has the same in every figure and every report."""
    names = list(METHODS)
    place = names.index(method) if method in METHODS else len(names)
    # Methods beyond the first round of colours have one again, with another shape.
    rounds, color = divmod(place, len(theme.lines))
    return theme.lines[color], *MARKERS[(color + 4 * rounds) % len(MARKERS)]


def new_figure(theme: Theme, width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches that belongs to no global state."""
    return Figure(figsize=(width, height), facecolor=theme.background, layout="constrained")


def dress(axes: Axes, theme: Theme) -> None:
    """Quiet axes: two spines, a light grid behind the data."""
    axes.set_facecolor(theme.background)
    axes.set_axisbelow(True)
    axes.grid(True, color=theme.grid, linewidth=0.8)
    axes.tick_params(colors=theme.faint, labelsize=9, length=0, which="both")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grid)
    axes.xaxis.label.set_color(theme.text)
    axes.yaxis.label.set_color(theme.text)
    axes.title.set_color(theme.text)


def png(figure: Figure, dpi: int) -> bytes:
    """The figure as a PNG of 32 colours, which is all that lines and letters need: a third of the size."""
    drawn, written = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(32).save(written, format="PNG", optimize=True)
    return written.getvalue()
