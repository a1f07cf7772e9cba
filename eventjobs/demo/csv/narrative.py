"""A profile in a few plain English sentences, the most telling first, made from its numbers."""

from collections.abc import Callable, Iterator

from eventjobs.demo.csv.column_stats import Column
from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.profile import Profile

STRONG = 0.7
SKEWED = 2.0
DOMINANT_SHARE = 0.5
_KINDS = {
    "integer": "of numbers",
    "float": "of numbers",
    "text": "of text",
    "date": "of dates",
    "datetime": "of dates",
    "boolean": "of yes or no",
    "empty": "without any values",
}


def narrate(profile: Profile, sentences_max: int) -> list[str]:
    """At most *sentences_max* sentences. The first says what the table is; none is empty."""
    tellers: list[Callable[[Profile], Iterator[str]]] = [
        _shape,
        _missing,
        _together,
        _spans,
        _identifiers,
        _skewed,
        _dominant,
        _almost_numbers,
        _constant,
    ]
    if not profile.rows:
        tellers = [_shape]
    told = [list(each(profile)) for each in tellers]
    # Every teller gets one sentence before any gets a second.
    rounds = max(map(len, told))
    chosen = [
        (teller, turn)
        for turn in range(rounds)
        for teller, said in enumerate(told)
        if turn < len(said)
    ]
    return [told[teller][turn] for teller, turn in sorted(chosen[:sentences_max])]


def number(value: float) -> str:
    """*value* as people write it: 1,234,567, 12.35, 0.00012, 1.5e+12."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-4:
        return f"{value:.3g}"
    if float(value).is_integer() or size >= 10_000:
        return f"{value:,.0f}"
    digits = 2 if size >= 1 else 4
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """A share as a percentage that is never rounded to all or nothing."""
    if 0 < share < 0.001:
        return "under 0.1%"
    if 0.999 < share < 1:
        return "over 99.9%"
    return f"{share * 100:.1f}".removesuffix(".0") + "%"


def is_identifier(column: Column, rows: int) -> bool:
    """Whether every row has a value of its own, as ids and names of rows do."""
    if column.type not in ("integer", "text") or rows < 10 or column.missing:
        return False
    return column.distinct_exact and column.distinct == rows


def _name(column: Column | str) -> str:
    return f"“{clip(column if isinstance(column, str) else column.name, 40)}”"


def _count(amount: int, one: str, many: str) -> str:
    return f"{amount:,} {one if amount == 1 else many}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _shape(profile: Profile) -> Iterator[str]:
    columns = _count(profile.column_count, "column", "columns")
    if not profile.rows:
        yield f"The file has a header with {columns} and no rows."
        return
    kinds: dict[str, int] = {}
    for column in profile.columns:
        kind = _KINDS[column.type]
        kinds[kind] = kinds.get(kind, 0) + 1
    rows = _count(profile.rows, "row", "rows")
    if len(kinds) == 1 and len(profile.columns) == 1:
        yield f"The table has {rows} and one column {next(iter(kinds))}."
        return
    parts = [f"{amount} {kind}" for kind, amount in sorted(kinds.items(), key=lambda it: -it[1])]
    whole = profile.column_count == len(profile.columns)
    of = ":" if whole else f"; the first {len(profile.columns)} are"
    yield f"The table has {rows} and {columns}{of} {_listed(parts)}."


def _missing(profile: Profile) -> Iterator[str]:
    gaps = sorted((each for each in profile.columns if each.missing), key=lambda it: -it.missing)
    empty = [each for each in gaps if each.type == "empty"]
    gaps = [each for each in gaps if each.type != "empty"]
    if empty:
        names = _listed([_name(each) for each in empty[:3]])
        more = f" ({len(empty)} columns in all)" if len(empty) > 3 else ""
        yield f"There is not a single value in {names}{more}."
    if gaps:
        worst = [f"{_name(each)} ({percent(each.missing_share)} of rows)" for each in gaps[:3]]
        others = _count(len(gaps), "column has", "columns have")
        yield f"{others} missing values, most of all {_listed(worst)}."
    elif not empty:
        yield "No value is missing."


def _together(profile: Profile) -> Iterator[str]:
    identifiers = {each.name for each in profile.columns if is_identifier(each, profile.rows)}
    strong = [
        each
        for each in profile.correlations
        if abs(each.r) >= STRONG and not {each.a, each.b} & identifiers
    ]
    for each in strong[:2]:
        how = "rise and fall together" if each.r > 0 else "move in opposite directions"
        yield f"{_name(each.a)} and {_name(each.b)} {how} (r = {each.r:.2f})."
    if not strong and profile.correlations:
        yield "No two columns of numbers are strongly related."


def _spans(profile: Profile) -> Iterator[str]:
    for column in profile.columns:
        if column.dates:
            first, last = column.dates.earliest[:10], column.dates.latest[:10]
            if first == last:
                yield f"All dates in {_name(column)} are on {first}."
            else:
                yield f"{_name(column)} runs from {first} to {last}."


def _identifiers(profile: Profile) -> Iterator[str]:
    found = [_name(each) for each in profile.columns if is_identifier(each, profile.rows)]
    if found:
        verb = "has" if len(found) == 1 else "have"
        yield f"{_listed(found[:3])} {verb} a different value in every row."


def _skewed(profile: Profile) -> Iterator[str]:
    for column in profile.columns:
        it = column.numbers
        if it is None or it.skewness is None or it.median is None or it.mean is None:
            continue
        if abs(it.skewness) >= SKEWED and it.max is not None and it.min is not None:
            edge = f"up to {number(it.max)}" if it.skewness > 0 else f"down to {number(it.min)}"
            yield (
                f"Half of {_name(column)} is at or below {number(it.median)}, but values reach "
                f"{edge}, which moves the mean to {number(it.mean)}."
            )


def _dominant(profile: Profile) -> Iterator[str]:
    for column in profile.columns:
        present = profile.rows - column.missing
        if not column.texts or column.distinct < 2:
            continue
        top = column.texts.top[0]
        if top.count >= present * DOMINANT_SHARE:
            share = percent(top.count / present)
            yield f"In {_name(column)}, {share} of the values are “{clip(top.value, 40)}”."


def _almost_numbers(profile: Profile) -> Iterator[str]:
    for column in profile.columns:
        if column.exceptions_count:
            wrong = _listed([f"“{each}”" for each in column.exceptions])
            amount = _count(column.exceptions_count, "value is not", "values are not")
            yield f"{_name(column)} would be numbers, but {amount} ({wrong})."


def _constant(profile: Profile) -> Iterator[str]:
    same = [each for each in profile.columns if each.distinct == 1 and not each.missing]
    if same and profile.rows > 1:
        names = _listed([_name(each) for each in same[:3]])
        yield f"Every row has the same value in {names}."
