"""Flows drawn as SVG: columns from left to right, tensors and models in turn, no text outside its box.

Drawn here: Graphviz needs a binary, and grandalf, a layout library in pure Python, is under the GPL or the EPL.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from repo_builder.pipeline.flow import Flow

_CHARACTER, _LINE, _PAD, _GAP_X, _GAP_Y, _MARGIN = 7.3, 16.0, 10.0, 48.0, 14.0, 16.0
_STYLE = (
    "text{font:12px ui-monospace,monospace;fill:#1f2328}.name{font-weight:bold}.kind{fill:#57606a}"
    ".model{fill:#ddf4ff;stroke:#0969da}.tensor{fill:#fff;stroke:#8c959f}.public{stroke:#1a7f37;stroke-width:2}"
    ".edge{fill:none;stroke:#8c959f;stroke-width:1.2}"
)


@dataclass(frozen=True)
class Box:
    """A box of the picture in pixels, with its lines of text."""

    key: tuple[str, str]
    lines: tuple[str, ...]
    style: str
    x: float
    y: float
    width: float
    height: float


def svg(flows: Sequence[Flow]) -> str:
    """One SVG document with all flows below each other."""
    parts: list[str] = []
    top, width = _MARGIN, 0.0
    for flow in flows:
        parts.append(_text(_MARGIN, top + 12, flow.name, "name"))
        boxes = layout(flow, top + 2 * _LINE)
        parts += [_edge(boxes[a], boxes[b]) for a, b in edges(flow)]
        parts += [_box(box) for box in boxes.values()]
        top = max(box.y + box.height for box in boxes.values()) + 2 * _LINE
        width = max(width, *(box.x + box.width for box in boxes.values()), _MARGIN + _length(flow.name))
    size = f'width="{width + _MARGIN:.0f}" height="{top:.0f}" viewBox="0 0 {width + _MARGIN:.0f} {top:.0f}"'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n{body}\n</svg>\n'


def html(title: str, flows: Sequence[Flow]) -> str:
    """One page with the picture inside; loads nothing."""
    head = (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(_shown(title))}</title></head>'
    )
    return f"{head}\n<body>\n{svg(flows)}</body>\n</html>\n"


def edges(flow: Flow) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Pairs of keys of boxes: tensor to the model that reads it, model to the tensor that it writes."""
    found = []
    for place, node in enumerate(flow.nodes):
        key = ("model", str(place))
        found += [(("tensor", name), key) for name in node.reads]
        found += [(key, ("tensor", name)) for name in node.writes]
    return found


def layout(flow: Flow, top: float) -> dict[tuple[str, str], Box]:
    """Boxes by key: each stands right of all that lead to it, ordered in its column as those are."""
    texts = {("tensor", t.name): tuple(x for x in (t.name, t.kind) if x) for t in flow.tensors}
    texts |= {("model", str(place)): (node.name, node.engine) for place, node in enumerate(flow.nodes)}
    public = {("tensor", name) for name in (*flow.inputs, *flow.outputs)}
    columns = _columns(list(texts), edges(flow), {("tensor", name) for name in flow.outputs})
    boxes: dict[tuple[str, str], Box] = {}
    x = _MARGIN
    tallest = max(sum(_height(texts[key]) for key in column) + _GAP_Y * (len(column) - 1) for column in columns)
    for column in columns:
        widest = max(_width(texts[key]) for key in column)
        y = top + (tallest - sum(_height(texts[key]) for key in column) - _GAP_Y * (len(column) - 1)) / 2
        for key in _ordered(column, edges(flow), boxes):
            style = key[0] + (" public" if key in public else "")
            boxes[key] = Box(key, texts[key], style, x, y, widest, _height(texts[key]))
            y += _height(texts[key]) + _GAP_Y
        x += widest + _GAP_X
    return boxes


def _columns(
    keys: Sequence[tuple[str, str]],
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]],
    last: Iterable[tuple[str, str]],
) -> list[list[tuple[str, str]]]:
    """Keys by the longest way that leads to them; outputs in the last column. A circle ends after as many rounds."""
    depth = dict.fromkeys(keys, 0)
    for _ in keys:
        for a, b in pairs:
            depth[b] = max(depth[b], min(depth[a] + 1, len(keys)))
    deepest = max(depth.values())
    depth |= {key: deepest for key in last if depth[key]}
    return [column for level in range(deepest + 1) if (column := [key for key in keys if depth[key] == level])]


def _ordered(
    column: Sequence[tuple[str, str]],
    pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]],
    placed: Mapping[tuple[str, str], Box],
) -> list[tuple[str, str]]:
    def middle(key: tuple[str, str]) -> float:
        before = [placed[a].y + placed[a].height / 2 for a, b in pairs if b == key and a in placed]
        return sum(before) / len(before) if before else 0.0

    return sorted(column, key=middle)


def _width(lines: Sequence[str]) -> float:
    return 2 * _PAD + max(map(_length, lines))


def _length(text: str) -> float:
    """Pixels of a line; Chinese, Japanese and Korean characters are twice as wide."""
    return _CHARACTER * sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in _shown(text))


def _height(lines: Sequence[str]) -> float:
    return _PAD + _LINE * len(lines)


def _box(box: Box) -> str:
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    round_ = 4 if box.key[0] == "model" else 12
    lines = [
        _text(box.x + _PAD, box.y + _LINE * (row + 1), line, "kind" if row else "name")
        for row, line in enumerate(box.lines)
    ]
    return "\n".join([f'<rect class="{box.style}" rx="{round_}" {place}/>', *lines])


def _edge(a: Box, b: Box) -> str:
    x1, y1, x2, y2 = a.x + a.width, a.y + a.height / 2, b.x, b.y + b.height / 2
    bend = max((x2 - x1) / 2, _GAP_X / 2)
    way = f"M{x1:.1f} {y1:.1f} C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return f'<path class="edge" d="{way}"/>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(_shown(text))}</text>'


def _shown(text: str) -> str:
    """Control characters, which XML does not have, as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
