"""Puts a profile into a few plain English sentences."""

from collections import Counter
from collections.abc import Iterator

from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.profile import Profile, is_identifier, related_pairs

_KINDS = {"integer": "numbers", "float": "numbers", "datetime": "times", "empty": "no values"}


def narrate(profile: Profile) -> Iterator[str]:
    """What the table is, what is missing, what belongs together, and then each column."""
    rows, columns = profile["rows"], profile["columns"]
    width = _count(profile["column_count"], "column")
    if not rows:
        yield f"The file has a header with {width} and no rows."
        return
    kinds = Counter(_KINDS.get(each["type"], f"{each['type']}s") for each in columns)
    parts = ", ".join(f"{amount} of {kind}" for kind, amount in kinds.most_common())
    of = f"; the first {len(columns)} are" if profile["columns_omitted"] else ":"
    yield f"The table has {_count(rows, 'row')} and {width}{of} {parts}."
    gaps = sorted((each for each in columns if each["missing"]), key=lambda it: -it["missing"])
    worst = [f"{_name(it)} ({percent(it['missing_share'])} of rows)" for it in gaps[:3]]
    if worst:
        yield f"Values are missing in {_count(len(gaps), 'column')}: {', '.join(worst)}."
    for each in [each for each in related_pairs(profile) if abs(each["r"]) >= 0.7][:2]:
        how = "rise and fall together" if each["r"] > 0 else "move in opposite directions"
        yield f"“{clip(each['a'], 40)}” and “{clip(each['b'], 40)}” {how} (r = {each['r']:.2f})."
    for column in columns:
        yield from _column(column, rows)


def percent(share: float) -> str:
    """A share in percent; less than one in a thousand is shown as 0.1%, and not as nothing."""
    rounded = min(max(share, 0.001), 0.999) if 0 < share < 1 else share
    return f"{rounded * 100:.1f}".removesuffix(".0") + "%"


def _name(column: Profile) -> str:
    return f"“{clip(column['name'], 40)}”"


def _count(amount: int, noun: str) -> str:
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def _column(column: Profile, rows: int) -> Iterator[str]:
    name, dates, numbers = _name(column), column["dates"], column["numbers"]
    if is_identifier(column, rows):
        yield f"{name} has a different value in every row."
    if dates:
        yield f"{name} runs from {dates['earliest'][:10]} to {dates['latest'][:10]}."
    if numbers and abs(numbers["skewness"] or 0) >= 2:
        edge = "max" if numbers["skewness"] > 0 else "min"
        yield (
            f"Half of {name} is at or below {numbers['median']:,.6g}; the {edge}imum of "
            f"{numbers[edge]:,.6g} moves the mean to {numbers['mean']:,.6g}."
        )
    if column["texts"] and column["distinct"] > 1:
        top = column["texts"]["top"][0]
        share = top["count"] / (rows - column["missing"])
        if share >= 0.5:
            yield f"In {name}, {percent(share)} of the values are “{clip(top['value'], 40)}”."
    if column["exceptions_count"]:
        wrong = ", ".join(f"“{each}”" for each in column["exceptions"])
        yield f"{name} would be numbers, but for {column['exceptions_count']:,} values: {wrong}."
