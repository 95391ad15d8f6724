"""Draws docs/backward.svg: one backward pass, from a real run.

    python tools/backward_picture.py

Each node carries its step in the engine's order, its sequence number, what it saved and the gradient that arrives at it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flambeau as torch
from flambeau.cli.graph import MARGIN, Box, arrange, collect
from flambeau.cli.svg import Drawing

ROW, HEIGHT = 104, 62
PROGRAM = ["y = x * w", "z = y + b", "loss = (z * y).sum()", "loss.backward()"]


def run() -> tuple[Any, dict[str, Any], list[tuple[Any, Any]]]:
    """The loss of a small program, its leaves, and (node, gradient) in the order of the backward pass."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    w = torch.tensor([3.0, 0.5], requires_grad=True)
    b = torch.tensor(1.0, requires_grad=True)
    y = x * w
    z = y + b
    loss = (z * y).sum()
    steps: list[tuple[Any, Any]] = []
    waiting, seen = [loss.grad_fn], {loss.grad_fn}
    while waiting:
        node = waiting.pop()
        node.register_prehook(lambda g, node=node: steps.append((node, g[0].clone())))
        for n, _ in node.next_functions:
            if n is not None and n not in seen:
                seen.add(n)
                waiting.append(n)
    return loss, {"x": x, "w": w, "b": b}, steps


def numbers(t: Any) -> str:
    values = t.tolist() if t.ndim else [t.item()]
    return "[" + ", ".join(f"{v:g}" for v in values) + "]" if t.ndim else f"{values[0]:g}"


def main(path: Path) -> None:
    loss, leaves, steps = run()
    root = loss.grad_fn
    boxes = collect(root, {id(t): name for name, t in leaves.items()})
    order = nodes_of(root)
    saved = {n: [a[7:] for a in dir(n) if a.startswith("_saved_") and isinstance(getattr(n, a), torch.Tensor)] for n in order}
    loss.backward()
    number = {n: i + 1 for i, (n, _) in enumerate(steps)}
    arrived = dict(steps)
    for node, box in zip(order, boxes):
        name = box.lines[0] if box.leaf else node.name()
        if box.leaf:
            box.lines = [f"AccumulateGrad of {name}", f"{name}.grad = {numbers(leaves[name].grad)}"]
        else:
            kept = ", ".join(saved[node]) or "nothing"
            box.lines = [f"{node.name()}   seq {node._sequence_nr() - first(order)}", f"saved: {kept}", f"gradient in: {numbers(arrived[node])}"]
    rows = arrange(boxes)
    width = max(b.x + b.width / 2 for b in boxes) + 2 * MARGIN
    drawing = Drawing(width, 2 * MARGIN + ROW * len(rows) - (ROW - HEIGHT) + 22 * len(PROGRAM))
    for i, line in enumerate(PROGRAM):
        drawing.text(MARGIN, MARGIN + 14 + 20 * i, line, 13, "start", font_family="ui-monospace, monospace")
    down = MARGIN + 22 * len(PROGRAM) + 10
    top = lambda box: down + ROW * box.row  # noqa: E731
    for box in boxes:
        for source in box.inputs:
            x1, y1, x2, y2 = box.x, top(box) + HEIGHT, source.x, top(source)
            bend = (y2 - y1) / 2
            if source.row > box.row + 1:  # past the boxes between
                x1, x2, out = x1 + box.width / 2 - 12, x2 + source.width / 2 - 12, 54
                curve = f"M{x1:.1f},{y1:.1f} C{x1 + out:.1f},{y1 + 30:.1f} {x2 + out:.1f},{y2 - 30:.1f} {x2:.1f},{y2 - 5:.1f}"
            else:
                curve = f"M{x1:.1f},{y1:.1f} C{x1:.1f},{y1 + bend:.1f} {x2:.1f},{y2 - bend:.1f} {x2:.1f},{y2 - 5:.1f}"
            drawing.add("path", d=curve, fill="none", stroke="#9ca3af", stroke_width=1.4)
            drawing.add("path", d=f"M{x2 - 4:.1f},{y2 - 8:.1f} L{x2:.1f},{y2 - 1:.1f} L{x2 + 4:.1f},{y2 - 8:.1f} Z", fill="#9ca3af")
    for node, box in zip(order, boxes):
        draw_box(drawing, box, top(box), number[node])
    drawing.save(path)


def nodes_of(root: Any) -> list[Any]:
    """The nodes in the order in which ``collect`` makes their boxes."""
    found: dict[Any, None] = {root: None}
    waiting, seen = [root], {root}
    while waiting:
        node = waiting.pop()
        for source, _ in node.next_functions:
            if source is None:
                continue
            found[source] = None
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return list(found)


def first(order: list[Any]) -> int:
    return min(n._sequence_nr() for n in order) - 1


def draw_box(drawing: Drawing, box: Box, y: float, step: int) -> None:
    fill, stroke = ("#dbeafe", "#2563eb") if box.leaf else ("#f3f4f6", "#6b7280")
    drawing.add("rect", x=box.x - box.width / 2, y=y, width=box.width, height=HEIGHT, rx=6, fill=fill, stroke=stroke)
    for i, line in enumerate(box.lines):
        at = y + HEIGHT / 2 + 4 + (i - (len(box.lines) - 1) / 2) * 17
        drawing.text(box.x, at, line, 12, font_family="ui-monospace, monospace")
    left = box.x - box.width / 2
    drawing.add("circle", cx=left, cy=y, r=12, fill="#f59e0b", stroke="#92400e")
    drawing.text(left, y + 4.5, str(step), 12, font_family="ui-monospace, monospace", font_weight="bold")


if __name__ == "__main__":
    main(Path(__file__).parent.parent / "docs" / "backward.svg")
