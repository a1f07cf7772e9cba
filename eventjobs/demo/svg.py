"""Charts as SVG: light, readable without colour alone, and safe for any text.

Every function returns a whole document with a title and a description. Text from the data is
escaped, cut to what fits, and cleaned of what XML cannot hold.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 430
INK, SOFT, GRID, PAPER = "#1f2933", "#5f6c7b", "#e4e8ee", "#ffffff"
BLUE, DEEP, ORANGE = "#4f81c7", "#2b5797", "#d9480f"
_LOW, _MIDDLE, _HIGH = (178, 70, 47), (247, 248, 250), (43, 99, 170)

#: What XML 1.0 cannot hold, and the marks that reverse the direction of text.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    value: float
    note: str


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    whole: bool,
    median: float | None,
    below: int = 0,
    above: int = 0,
) -> str:
    """How often values fall between *edges*; with *whole*, how often each whole number occurs."""
    left, top, right, bottom = 70, 92, WIDTH - 28, HEIGHT - 56
    high = nice_ticks(0, max(1, *counts))
    parts = _level_lines(high, left, top, right, bottom)
    low, width = edges[0], edges[-1] - edges[0]

    def across(value: float) -> float:
        return left + (value - low) / width * (right - left)

    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        tall = count / high[-1] * (bottom - top)
        x, wide = across(start) + 0.75, across(end) - across(start) - 1.5
        what = compact(start) if whole else f"{compact(start)} to {compact(end)}"
        parts.append(_rect(x, bottom - tall, wide, tall, BLUE, f"{what}: {count:,}", radius=1.5))
    shift = 0.5 if whole else 0.0
    ticks = nice_ticks(low, edges[-1] - (1 if whole else 0), 8, inside=True)
    for tick in ticks:
        if whole and not float(tick).is_integer():
            continue
        x = across(tick + shift)
        parts.append(_line(x, bottom, x, bottom + 5, SOFT))
        parts.append(_text(x, bottom + 20, compact(tick, _largest(ticks)), anchor="middle"))
    parts.append(_line(left, bottom, right, bottom, SOFT))
    if median is not None and low <= median <= edges[-1]:
        x = across(median + shift)
        parts.append(_line(x, top - 4, x, bottom, ORANGE, dash=True))
        anchor, beside = ("end", -6) if x > (left + right) / 2 else ("start", 6)
        words = f"median {compact(round(median, 4 - _magnitude(median)))}"
        parts.append(_text(x + beside, top - 8, words, anchor=anchor, fill=ORANGE))
    outside = [f"{below:,} lower"] * bool(below) + [f"{above:,} higher"] * bool(above)
    under = f"{sum(counts):,} values"
    if outside:
        under += f"; not shown: {' and '.join(outside)}"
    parts.append(
        _text((left + right) / 2, HEIGHT - 12, _fit(title, 500), anchor="middle", fill=SOFT)
    )
    parts.append(_turned(18, (top + bottom) / 2, "rows"))
    return _document(title, under, f"Histogram of {title}. {under}.", parts, HEIGHT)


def bars(title: str, under: str, rows: Sequence[Bar], *, full: float | None = None) -> str:
    """One horizontal bar for each of *rows*; *full* is the value of a bar of full width."""
    step, top = 30, 74
    height = top + step * len(rows) + 24
    labels = [_fit(row.label, 210) for row in rows]
    left = 24 + max([60, *map(_width, labels)]) + 10
    noted = max((_width(row.note) for row in rows), default=0)
    reach = WIDTH - 28 - noted - 8 - left
    most = full or max((row.value for row in rows), default=0) or 1
    parts = []
    for at, row in enumerate(rows):
        y = top + at * step
        wide = max(1.0, row.value / most * reach)
        if full:
            parts.append(_rect(left, y + 4, reach, step - 10, "#f0f2f5", radius=3))
        parts.append(
            _rect(left, y + 4, wide, step - 10, BLUE, f"{row.label}: {row.note}", radius=3)
        )
        parts.append(_text(left - 10, y + 18, labels[at], anchor="end", fill=INK))
        after = left + (reach if full else wide) + 8
        parts.append(_text(after, y + 18, row.note))
    parts.append(_line(left, top, left, top + step * len(rows), SOFT))
    told = "; ".join(f"{row.label}: {row.note}" for row in rows)
    return _document(title, under, f"{title}. {under}. {told}", parts, height)


def heat_map(
    title: str, under: str, names: Sequence[str], cells: Sequence[Sequence[float | None]]
) -> str:
    """A square of values from -1 to 1 with a name for each row and column."""
    size = max(30, min(64, 560 // max(1, len(names))))
    labels = [_fit(name, 130) for name in names]
    longest = max(map(_width, labels))
    left = 24 + max(40, longest) + 10
    top = 70 + max(14, round(longest * 0.72)) + 6
    width = max(WIDTH, left + size * len(names) + 150)
    parts = []
    for row, words in enumerate(labels):
        y = top + row * size + size / 2 + 4
        parts.append(_text(left - 10, y, words, anchor="end", fill=INK))
        x = left + row * size + size / 2
        label = _text(0, 0, words, fill=INK)
        parts.append(f'<g transform="translate({x:.1f} {top - 8}) rotate(-45)">{label}</g>')
    for row, values in enumerate(cells):
        for column, value in enumerate(values):
            x, y = left + column * size, top + row * size
            shown = "n/a" if value is None else f"{round(value, 2) + 0.0:.2f}"
            fill = "#eceff3" if value is None else _shade(value)
            hover = f"{names[row]} and {names[column]}: {shown}"
            parts.append(_rect(x + 1, y + 1, size - 2, size - 2, fill, hover, radius=3))
            ink = "#ffffff" if value is not None and abs(value) > 0.8 else INK
            words = shown if size >= 42 else shown.replace("0.", ".").replace("1.00", "1")
            middle = (x + size / 2, y + size / 2 + 4)
            parts.append(_text(*middle, words, anchor="middle", fill=ink, small=size < 42))
    parts += _scale(left + size * len(names) + 34, top)
    height = max(top + size * len(names) + 28, top + 170)
    return _document(title, under, f"{title}. {under}.", parts, height, width)


def _scale(x: float, y: float) -> Iterable[str]:
    """The key to the colours."""
    for at in range(11):
        yield _rect(x, y + at * 12, 16, 12, _shade(1 - at / 5))
    for at, words in ((0, "+1 together"), (5, "0"), (10, "-1 opposite")):
        yield _text(x + 22, y + at * 12 + 10, words)


def _shade(value: float) -> str:
    """From red (-1) over near white (0) to blue (1)."""
    end = _HIGH if value >= 0 else _LOW
    share = min(1.0, abs(value))
    mixed = (round(a + (b - a) * share) for a, b in zip(_MIDDLE, end, strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def nice_ticks(low: float, high: float, wanted: int = 5, *, inside: bool = False) -> list[float]:
    """About *wanted* round numbers that reach from *low* to *high*, or stay *inside* them."""
    if not high > low:
        return [low]
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((each * power for each in (1, 2, 5) if each * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9) if inside else math.floor(low / step + 1e-9)
    last = math.floor(high / step + 1e-9) if inside else math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)) + 1)
    return [round(at * step, digits) + 0.0 for at in range(first, last + 1)]


def compact(value: float, largest: float | None = None) -> str:
    """A number short enough for an axis: 1,500, 25k, 1.2M, 0.05, 3e-07.

    With *largest*, the size of the largest number on the axis, all of them are in its unit.
    """
    size = abs(largest or value) if value else 0.0
    if value and (abs(value) < 1e-3 or size >= 1e15):
        return f"{value:.2g}"
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            scaled = value / (1e3 if letter == "k" else limit)
            return f"{scaled:,.2f}".rstrip("0").rstrip(".") + letter
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _largest(ticks: Sequence[float]) -> float:
    return max(abs(each) for each in ticks)


def _fit(text: str, width_max: float) -> str:
    """As much of *text* as fits at the size of labels."""
    if _width(text) <= width_max:
        return text
    widths = accumulate(_width(each) for each in text)
    return text[: sum(each <= width_max - 12 for each in widths)] + "…"


def _width(text: str) -> float:
    """About how wide *text* is at the size of labels; wide scripts count double."""
    return sum(12.5 if ord(each) > 0x2E80 else 7.2 for each in text)


def _clean(text: str) -> str:
    return escape(_UNPRINTABLE.sub("\ufffd", text), {'"': "&quot;"})


def _level_lines(
    levels: Sequence[float], left: float, top: float, right: float, bottom: float
) -> list[str]:
    parts = []
    for level in levels:
        y = bottom - level / levels[-1] * (bottom - top)
        parts.append(_line(left, y, right, y, GRID))
        parts.append(_text(left - 8, y + 4, compact(level, levels[-1]), anchor="end"))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, color: str, *, dash: bool = False) -> str:
    style = ' stroke-dasharray="5 4" stroke-width="1.5"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{style}/>'
    )


def _rect(
    x: float, y: float, wide: float, tall: float, fill: str, hover: str = "", *, radius: float = 0
) -> str:
    told = f"<title>{_clean(hover)}</title>" if hover else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, wide):.1f}" height="{max(0.0, tall):.1f}" '
        f'rx="{radius}" fill="{fill}">{told}</rect>'
    )


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", fill: str = SOFT, small: bool = False
) -> str:
    size = ' font-size="10"' if small else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{size}>'
        f"{_clean(words)}</text>"
    )


def _turned(x: float, y: float, words: str) -> str:
    label = _text(0, 0, words, anchor="middle", fill=SOFT)
    return f'<g transform="translate({x:.1f} {y:.1f}) rotate(-90)">{label}</g>'


def _document(
    title: str, under: str, told: str, parts: Iterable[str], height: float, width: float = WIDTH
) -> str:
    head = (
        f'<text x="24" y="34" font-size="17" font-weight="600" fill="{INK}">'
        f"{_clean(_fit(title, 460))}</text>{_text(24, 54, _fit(under, 660))}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        'font-size="12" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\">"
        f"<title>{_clean(title)}</title><desc>{_clean(told)}</desc>"
        f'<rect width="100%" height="100%" fill="{PAPER}"/>{head}{"".join(parts)}</svg>\n'
    )
