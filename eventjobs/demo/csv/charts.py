"""Which charts tell most about a profile, and their names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from eventjobs.demo.csv.column_stats import Column
from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.narrative import is_identifier, percent
from eventjobs.demo.csv.profile import Profile
from eventjobs.demo.svg import Bar, bars, heat_map, histogram

MISSING_COLUMNS_MAX = 15
HEAT_MAP_COLUMNS_MAX = 10


@dataclass(frozen=True, slots=True)
class Chart:
    """*name* is a plain file name, whatever the columns are called; *draw* gives the SVG."""

    name: str
    title: str
    draw: Callable[[], str]


def charts_of(profile: Profile, charts_max: int) -> list[Chart]:
    """At most *charts_max* charts: of the whole table first, then of its columns in order."""
    drawn: list[tuple[str, str, Callable[[], str]]] = []
    if profile.rows and any(column.missing for column in profile.columns):
        drawn.append(("missing", "Missing values", lambda: _missing(profile)))
    names = _related(profile)
    if len(names) >= 2:
        drawn.append(("correlations", "Correlations", lambda: _correlations(profile, names)))
    drawn += _of_columns(profile)
    return [
        Chart(f"chart-{number:02}-{name}.svg", title, draw)
        for number, (name, title, draw) in enumerate(drawn[:charts_max], 1)
    ]


def _of_columns(profile: Profile) -> Iterator[tuple[str, str, Callable[[], str]]]:
    for number, column in enumerate(profile.columns, 1):
        name, title = f"column-{number}", clip(column.name, 60)
        if is_identifier(column, profile.rows):
            continue
        if column.numbers and column.numbers.histogram:
            yield name, title, lambda column=column: _histogram(column)  # type: ignore[misc]
        elif column.booleans or (column.texts and _repeats(column)):
            yield name, title, lambda column=column: _tops(column, profile.rows)  # type: ignore[misc]


def _repeats(column: Column) -> bool:
    """Whether some value of a text column is worth a bar."""
    return column.texts is not None and column.distinct > 1 and column.texts.top[0].count > 1


def _missing(profile: Profile) -> str:
    gaps = sorted((each for each in profile.columns if each.missing), key=lambda it: -it.missing)
    shown = gaps[:MISSING_COLUMNS_MAX]
    rows = [
        Bar(clip(each.name, 60), each.missing_share, percent(each.missing_share)) for each in shown
    ]
    under = f"share of {profile.rows:,} rows without a value"
    if len(gaps) > len(shown):
        under += f"; the {len(shown)} emptiest of {len(gaps)} columns"
    return bars("Missing values", under, rows, full=1.0)


def _related(profile: Profile) -> list[str]:
    """The columns in the strongest correlations, in the order they have in the file."""
    identifiers = {each.name for each in profile.columns if is_identifier(each, profile.rows)}
    chosen: set[str] = set()
    for pair in profile.correlations:
        both = {pair.a, pair.b}
        if not both & identifiers and len(chosen | both) <= HEAT_MAP_COLUMNS_MAX:
            chosen |= both
    return [each.name for each in profile.columns if each.name in chosen]


def _correlations(profile: Profile, names: list[str]) -> str:
    known = {(each.a, each.b): each.r for each in profile.correlations}
    cells = [
        [1.0 if a == b else known.get((a, b), known.get((b, a))) for b in names] for a in names
    ]
    return heat_map("Correlations", "Pearson's r of each pair of columns", names, cells)


def _histogram(column: Column) -> str:
    it = column.numbers
    assert it is not None
    assert it.histogram is not None
    found = it.histogram
    return histogram(
        clip(column.name, 60),
        found.edges,
        found.counts,
        whole=found.whole,
        median=it.median,
        below=found.below,
        above=found.above,
    )


def _tops(column: Column, rows: int) -> str:
    present = rows - column.missing
    if column.booleans:
        counts = [("true", column.booleans.true), ("false", column.booleans.false)]
    else:
        assert column.texts is not None
        counts = [(each.value, each.count) for each in column.texts.top]
    shown = [Bar(value, n, f"{n:,} ({percent(n / present)})") for value, n in counts]
    under = f"{present:,} values"
    if len(shown) < column.distinct:
        about = "" if column.distinct_exact else "about "
        under += f"; the {len(shown)} most frequent of {about}{column.distinct:,} different ones"
    return bars(clip(column.name, 60), under, shown)
