"""Draws charts of a profile as SVG without scripts; the same data gives the same files."""

import re
import sys
from collections.abc import Iterator
from typing import Any

import pygal
from pygal.etree import etree
from pygal.style import Style

from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.narrative import percent
from eventjobs.demo.csv.profile import Profile, is_identifier, related_pairs

# pygal adds a finder of its plugins, of a kind that Python 3.11 warns of at imports that fail.
sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, pygal.PluginImportFixer)]

LABEL_CHARS_MAX = 40
_STYLE = Style(
    background="white", plot_background="white", colors=["#8fb4e3"], font_family="sans-serif"
)
#: What XML 1.0 cannot hold, and the marks that reverse the direction of text.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def draw_charts(profile: Profile) -> Iterator[tuple[str, str, bytes]]:
    """The name of each chart, its title, and the SVG: of the table first, then of its columns."""
    rows = profile["rows"]
    columns = sorted(profile["columns"], key=lambda it: -it["missing_share"])
    gaps = [(it["name"], it["missing_share"]) for it in columns if it["missing"] and rows]
    if shares := [(name, share, percent(share)) for name, share in gaps]:
        title = "Missing values"
        yield "missing", title, _bars(title, f"share of {rows:,} rows without a value", shares)
    names = [(f"{it['a']} and {it['b']}", it["r"]) for it in related_pairs(profile)]
    pairs = [(name, r, f"{r:.2f}") for name, r in names]
    if pairs:
        title = "Correlations"
        yield "correlations", title, _bars(title, "Pearson's r: 1 together, -1 opposite", pairs)
    for place, column in enumerate(profile["columns"], 1):
        title = clip(column["name"], 60)
        if not is_identifier(column, rows) and (svg := _column(title, column, rows)):
            yield f"column-{place}", title, svg


def _column(title: str, column: Profile, rows: int) -> bytes | None:
    """A histogram of numbers, or bars of the most frequent values, if any is there twice."""
    numbers, present = column["numbers"], rows - column["missing"]
    if numbers and (bins := numbers["histogram"]):
        outside = f"{bins['below']:,} lower and {bins['above']:,} higher are not shown"
        subtitle = f"{present:,} values, median {numbers['median']:,.6g}; {outside}"
        chart = _chart(pygal.Histogram, title, subtitle, height=400, show_x_guides=False)
        chart.add("", list(zip(bins["counts"], bins["edges"], bins["edges"][1:], strict=False)))
        return _svg(chart, title, subtitle)
    top = column["texts"]["top"] if column["texts"] else []
    counts = [(it["value"], it["count"]) for it in top] or list((column["booleans"] or {}).items())
    if not column["booleans"] and (not counts or counts[0][1] < 2):
        return None
    shown = [(value, n, f"{n:,} ({percent(n / present)})") for value, n in counts]
    return _bars(title, f"{present:,} values, {column['distinct']:,} different ones", shown)


def _bars(title: str, subtitle: str, rows: list[tuple[str, float, str]]) -> bytes:
    """Horizontal bars of labels, values and notes, the first at the top."""
    shown = [(clip(label, LABEL_CHARS_MAX), n, note) for label, n, note in rows[:15]]
    height = 130 + 30 * len(shown)
    chart = _chart(pygal.HorizontalBar, title, subtitle, height=height, print_values=True)
    chart.x_labels = [label for label, _, _ in reversed(shown)]
    bars = [{"value": n, "formatter": lambda _, it=note: it} for _, n, note in reversed(shown)]
    chart.add("", bars)
    return _svg(chart, title, "; ".join([subtitle, *(f"{it[0]}: {it[2]}" for it in shown)]))


def _chart(kind: Any, title: str, subtitle: str, **options: Any) -> Any:
    options |= {"js": (), "show_legend": False, "truncate_label": LABEL_CHARS_MAX, "width": 720}
    return kind(title=f"{title}\n{subtitle}", style=_STYLE, **options)


def _svg(chart: Any, title: str, description: str) -> bytes:
    """The chart without scripts, with a title and a description for screen readers."""
    etree.to_etree()  # not lxml, which may be installed
    chart.uuid = "1"
    root = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("script", etree.Comment):
                parent.remove(child)
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        root.insert(place, etree.Element(tag))
        root[place].text = text
    return _UNPRINTABLE.sub("\ufffd", etree.tostring(root, encoding="unicode")).encode()
