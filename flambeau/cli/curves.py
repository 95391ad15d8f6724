"""The picture of a training run: loss on the left, accuracy on the right, over the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from .svg import Drawing

__all__ = ["draw_curves"]

PANEL, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 44, 46
BLUE, ORANGE, GREEN = "#2563eb", "#ea7317", "#15803d"


def draw_curves(history: Sequence[tuple[float, float, float]], path: Path) -> None:
    """Draws (loss, held-out loss, held-out accuracy) of each epoch into an SVG file."""
    drawing = Drawing(2 * PANEL, HEIGHT)
    losses = [
        (BLUE, "training", [row[0] for row in history]),
        (ORANGE, "held out", [row[1] for row in history]),
    ]
    positive = [v for _, _, values in losses for v in values if v > 0] or [0.1, 1.0]
    low, high = 10.0 ** math.floor(math.log10(min(positive))), 10.0 ** math.ceil(math.log10(max(positive)))
    if low == high:
        low /= 10
    decades = [10.0**k for k in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    span = math.log(high / low)
    _panel(
        drawing,
        0,
        "loss (logarithmic)",
        losses,
        decades,
        lambda v: math.log(max(v, low) / low) / span,
        "{:g}",
    )

    right = [row[2] for row in history]
    floor = min(0.95, math.floor(min(right, default=0.9) * 20) / 20)
    step = 0.01 if floor >= 0.95 else 0.05 if floor >= 0.7 else 0.1
    ticks = [floor + i * step for i in range(round((1 - floor) / step) + 1)]
    _panel(
        drawing, PANEL, "accuracy on held-out digits", [(GREEN, "", right)], ticks,
        lambda v: (v - floor) / (1 - floor), "{:.0%}",
    )  # fmt: skip
    drawing.save(path)


def _panel(
    drawing: Drawing,
    x0: float,
    title: str,
    series: list[tuple[str, str, list[float]]],
    ticks: list[float],
    scale: Callable[[float], float],
    label: str,
) -> None:
    """One chart: `scale` takes a value to 0 (bottom) ... 1 (top)."""
    width, height = PANEL - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    epochs = max(1, *(len(values) for _, _, values in series))

    def place(epoch: int, value: float) -> tuple[float, float]:
        along = (epoch - 1) / max(1, epochs - 1)
        return x0 + LEFT + along * width, TOP + (1 - scale(value)) * height

    drawing.text(x0 + LEFT, TOP - 18, title, 14, "start", font_weight="600")
    for tick in ticks:
        y = TOP + (1 - scale(tick)) * height
        drawing.line([(x0 + LEFT, y), (x0 + LEFT + width, y)], "#e5e7eb")
        drawing.text(x0 + LEFT - 8, y + 4, label.format(tick), 11, "end", fill="#555")
    for epoch in range(1, epochs + 1, max(1, math.ceil(epochs / 12))):
        drawing.text(place(epoch, ticks[0])[0], TOP + height + 18, str(epoch), 11, fill="#555")
    drawing.text(x0 + LEFT + width / 2, TOP + height + 36, "epoch", 11, fill="#555")
    for i, (colour, name, values) in enumerate(series):
        points = [place(epoch, value) for epoch, value in enumerate(values, 1)]
        drawing.line(points, colour, 2, stroke_linejoin="round")
        for x, y in points:
            drawing.add("circle", cx=x, cy=y, r=2.5, fill=colour)
        if name:
            y = TOP + 14 + 18 * i
            drawing.line([(x0 + LEFT + width - 92, y - 4), (x0 + LEFT + width - 72, y - 4)], colour, 2)
            drawing.text(x0 + LEFT + width - 66, y, name, 11, "start")
