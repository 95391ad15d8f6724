"""Just enough SVG to draw a chart and a graph: a list of elements that becomes a file."""

from __future__ import annotations

import os
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

__all__ = ["Drawing"]

FONT = "system-ui, sans-serif"


class Drawing:
    """Elements on a white sheet; y points down."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.elements: list[str] = []

    def add(self, tag: str, content: str = "", **attributes: object) -> None:
        """An element; an underscore in an attribute's name is a hyphen."""
        text = " ".join(f"{k.replace('_', '-')}={quoteattr(_plain(v))}" for k, v in attributes.items())
        self.elements.append(f"<{tag} {text}>{escape(content)}</{tag}>" if content else f"<{tag} {text}/>")

    def text(self, x: float, y: float, content: str, size: float = 12, anchor: str = "middle", **attributes: object):
        """Text whose baseline is at y."""
        self.add("text", content, x=x, y=y, font_size=size, text_anchor=anchor, **{"fill": "#222", **attributes})

    def line(self, points: list[tuple[float, float]], stroke: str, width: float = 1, **attributes: object) -> None:
        joined = " ".join(f"{_plain(x)},{_plain(y)}" for x, y in points)
        self.add("polyline", points=joined, fill="none", stroke=stroke, stroke_width=width, **attributes)

    def save(self, path: Path) -> None:
        """Writes the file: aside first, so that there is never half of one."""
        w, h = _plain(self.width), _plain(self.height)
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}"'
        sheet = '<rect width="100%" height="100%" fill="white"/>'
        body = "\n".join([f'{head} font-family="{FONT}">', sheet, *self.elements, "</svg>\n"])
        aside = path.with_name(path.name + ".part")
        aside.write_text(body, encoding="utf-8")
        os.replace(aside, path)


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
