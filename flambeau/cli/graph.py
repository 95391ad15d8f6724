"""The picture of an autograd graph: walked from an output through `grad_fn.next_functions`, drawn in layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .svg import Drawing

__all__ = ["draw_graph"]

ROW, GAP, MARGIN, BOX = 58, 22, 28, 30


@dataclass(eq=False)
class Box:
    """A node of the graph on the sheet."""

    lines: list[str]
    leaf: bool
    inputs: list[Box] = field(default_factory=list)
    users: list[Box] = field(default_factory=list)
    row: int = 0  # 0 is the output, at the bottom of the sheet
    x: float = 0.0

    @property
    def width(self) -> float:
        return 20 + 7.2 * max(map(len, self.lines))


def draw_graph(output: Any, names: dict[str, Any], path: Path) -> None:
    """Draws the graph behind a tensor into an SVG file: operators, and the tensors that gradients accumulate in.

    `names` names those tensors, as `dict(model.named_parameters())` does. Edges point the way values flowed, down.
    """
    boxes = collect(output.grad_fn, {id(tensor): name for name, tensor in names.items()})
    rows = arrange(boxes)
    width = max(box.x + box.width / 2 for box in boxes) + MARGIN
    drawing = Drawing(width, 2 * MARGIN + ROW * len(rows) - (ROW - BOX))

    def top(box: Box) -> float:
        return MARGIN + ROW * (len(rows) - 1 - box.row)

    for box in boxes:
        for source in box.inputs:
            x1, y1, x2, y2 = source.x, top(source) + BOX, box.x, top(box)
            bend = (y2 - y1) / 2
            curve = f"M{x1:.1f},{y1:.1f} C{x1:.1f},{y1 + bend:.1f} {x2:.1f},{y2 - bend:.1f} {x2:.1f},{y2:.1f}"
            drawing.add("path", d=curve, fill="none", stroke="#9ca3af", stroke_width=1.2)
    for box in boxes:
        fill, stroke = ("#dbeafe", "#2563eb") if box.leaf else ("#f3f4f6", "#6b7280")
        drawing.add(
            "rect",
            x=box.x - box.width / 2,
            y=top(box),
            width=box.width,
            height=BOX,
            rx=5,
            fill=fill,
            stroke=stroke,
        )
        size = 12 if len(box.lines) == 1 else 10.5
        for i, line in enumerate(box.lines):
            y = top(box) + BOX / 2 + 4 + (i - (len(box.lines) - 1) / 2) * 12
            drawing.text(box.x, y, line, size, font_family="ui-monospace, monospace")
    drawing.save(path)


def collect(root: Any, names: dict[int, str]) -> list[Box]:
    """A box for every node behind `root`, inputs linked; without recursion, for graphs may be deep."""
    boxes: dict[Any, Box] = {}

    def box_of(node: Any) -> Box:
        if node not in boxes:
            tensor = getattr(node, "variable", None)
            if tensor is None:
                boxes[node] = Box([node.name()], leaf=False)
            else:
                shape = "x".join(map(str, tensor.shape)) or "scalar"
                boxes[node] = Box([names.get(id(tensor), "tensor"), shape], leaf=True)
        return boxes[node]

    waiting, seen = [root], {root}
    box_of(root)
    while waiting:
        node = waiting.pop()
        for source, _ in node.next_functions:
            if source is None:
                continue
            box_of(source).users.append(box_of(node))
            box_of(node).inputs.append(box_of(source))
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return list(boxes.values())


def arrange(boxes: list[Box]) -> list[list[Box]]:
    """Gives each box a row, as far from the output as its longest way to it, and an x; gives the rows."""
    left = {id(box): len(box.users) for box in boxes}
    ready = [box for box in boxes if not box.users]
    while ready:
        box = ready.pop()
        for source in box.inputs:
            source.row = max(source.row, box.row + 1)
            left[id(source)] -= 1
            if not left[id(source)]:
                ready.append(source)
    rows: list[list[Box]] = [[] for _ in range(max(box.row for box in boxes) + 1)]
    for box in boxes:
        rows[box.row].append(box)
    trunk = longest_way(rows)
    for row in rows:  # from the output up: whom a box feeds is in place already
        middle = next((box for box in row if box in trunk), row[0])
        middle.x = 0.0 if middle in trunk else _below(middle)
        left_side: list[Box] = []
        right_side: list[Box] = []
        for box in sorted((b for b in row if b is not middle), key=_below):
            lean = _below(box) or len(left_side) - len(right_side) - 0.5
            (left_side if lean < 0 else right_side).append(box)
        _place(middle, reversed(left_side), -1)
        _place(middle, right_side, 1)
    shift = MARGIN - min(box.x - box.width / 2 for box in boxes)
    for box in boxes:
        box.x += shift
    return rows


def longest_way(rows: list[list[Box]]) -> set[Box]:
    """The boxes of one longest way from the output back; it is drawn as a straight line."""
    height: dict[Box, int] = {}
    for row in reversed(rows):
        for box in row:
            height[box] = 1 + max((height[source] for source in box.inputs), default=0)
    box, way = rows[0][0], {rows[0][0]}
    while box.inputs:
        box = max(box.inputs, key=lambda source: (height[source], not source.leaf))
        way.add(box)
    return way


def _below(box: Box) -> float:
    """The middle of the boxes that this one feeds."""
    return sum(user.x for user in box.users) / len(box.users) if box.users else 0.0


def _place(middle: Box, boxes: Iterable[Box], side: int) -> None:
    """Sets boxes beside the middle one, outwards, each over what it feeds where there is room."""
    neighbour = middle
    for box in boxes:
        nearest = neighbour.x + side * ((neighbour.width + box.width) / 2 + GAP)
        box.x = side * max(side * _below(box), side * nearest)
        neighbour = box
