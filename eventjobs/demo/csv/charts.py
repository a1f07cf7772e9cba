"""Draws the charts that say most about a profile, as SVG files that run no scripts.

Text from the data is cleaned of what XML cannot hold. The same data gives the same file.
"""

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import pygal
from pygal.etree import etree
from pygal.style import Style

from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.narrative import is_identifier, number, percent, related
from eventjobs.demo.csv.profile import Profile

# pygal adds a finder of its plugins, of a kind that Python 3.11 warns of at imports that fail.
sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, pygal.PluginImportFixer)]

BARS_MAX = 15
LABEL_CHARS_MAX = 40
_STYLE = Style(
    background="#ffffff",
    plot_background="#ffffff",
    colors=("#8fb4e3",),
    opacity="1",
    font_family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif",
    label_font_size=12,
    major_label_font_size=12,
    value_font_size=12,
)
#: What XML 1.0 cannot hold, and the marks that reverse the direction of text.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


class Chart(NamedTuple):
    """*name* is a plain file name, whatever the columns are called; *draw* returns the SVG."""

    name: str
    title: str
    draw: Callable[[], bytes]


def charts_of(profile: Profile, charts_max: int) -> list[Chart]:
    """At most *charts_max* charts: of the whole table first, then of its columns in order."""
    return [
        Chart(f"chart-{place:02}-{name}.svg", title, draw)
        for place, (name, title, draw) in enumerate(islice(_charts(profile), charts_max), 1)
    ]


def _charts(profile: Profile) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    gaps = [each for each in profile["columns"] if each["missing"]]
    if gaps and profile["rows"]:
        gaps.sort(key=lambda it: -it["missing"])
        shares = [(it["name"], it["missing_share"], percent(it["missing_share"])) for it in gaps]
        yield (
            "missing",
            "Missing values",
            partial(
                _bars,
                "Missing values",
                f"share of {profile['rows']:,} rows without a value",
                shares,
            ),
        )
    if pairs := related(profile):
        named = [
            (f"{clip(it['a'], 18)} and {clip(it['b'], 18)}", it["r"], f"{it['r']:.2f}")
            for it in pairs
        ]
        yield (
            "correlations",
            "Correlations",
            partial(_bars, "Correlations", "Pearson's r: 1 together, -1 opposite", named),
        )
    for place, column in enumerate(profile["columns"], 1):
        title = clip(column["name"], 60)
        if is_identifier(column, profile["rows"]):
            continue
        if column["numbers"] and column["numbers"]["histogram"]:
            yield f"column-{place}", title, partial(_histogram, title, column["numbers"])
        elif column["booleans"] or (column["texts"] and column["texts"]["top"][0]["count"] > 1):
            yield f"column-{place}", title, partial(_values, title, column, profile["rows"])


def _values(title: str, column: Profile, rows: int) -> bytes:
    present = rows - column["missing"]
    top = column["texts"]["top"] if column["texts"] else []
    counts = [(it["value"], it["count"]) for it in top] or list(column["booleans"].items())
    shown = [(value, n, f"{n:,} ({percent(n / present)})") for value, n in counts]
    return _bars(title, f"{present:,} values, {column['distinct']:,} different ones", shown)


def _histogram(title: str, numbers: Profile) -> bytes:
    bins = numbers["histogram"]
    subtitle = f"{sum(bins['counts']):,} values; median {number(numbers['median'])}"
    outside = [f"{bins[side]:,} {side}" for side in ("below", "above") if bins[side]]
    subtitle += f"; not shown: {' and '.join(outside)}" if outside else ""
    chart = _chart(pygal.Histogram, title, subtitle, height=400, show_x_guides=False)
    chart.add("", list(zip(bins["counts"], bins["edges"], bins["edges"][1:], strict=False)))
    return _svg(chart, title, subtitle)


def _bars(title: str, subtitle: str, rows: list[tuple[str, float, str]]) -> bytes:
    """Horizontal bars of labels, values and notes, the first at the top."""
    shown = rows[:BARS_MAX]
    chart = _chart(
        pygal.HorizontalBar, title, subtitle, height=130 + 30 * len(shown), print_values=True
    )
    chart.x_labels = [_clean(clip(label, LABEL_CHARS_MAX)) for label, _, _ in reversed(shown)]
    bars = [{"value": n, "formatter": lambda _, note=note: note} for _, n, note in reversed(shown)]
    chart.add("", bars)
    return _svg(chart, title, f"{subtitle}. " + "; ".join(f"{it[0]}: {it[2]}" for it in shown))


def _chart(kind: Any, title: str, subtitle: str, **options: Any) -> Any:
    return kind(
        title=f"{_clean(title)}\n{_clean(subtitle)}",
        width=720,
        style=_STYLE,
        js=(),
        show_legend=False,
        truncate_label=LABEL_CHARS_MAX,
        **options,
    )


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)


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
        element = etree.Element(tag)
        element.text = _clean(text)
        root.insert(place, element)
    return bytes(etree.tostring(root))
