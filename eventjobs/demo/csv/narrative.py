"""Puts a profile into a few plain English sentences."""

from collections import Counter
from collections.abc import Iterator

from eventjobs.demo.csv.encoding import clip
from eventjobs.demo.csv.profile import Profile

STRONG = 0.7
SKEWED = 2.0
DOMINANT_SHARE = 0.5
_KINDS = {
    "integer": "numbers",
    "float": "numbers",
    "text": "text",
    "date": "dates",
    "datetime": "dates",
    "boolean": "yes or no",
    "empty": "no values",
}


def narrate(profile: Profile, sentences_max: int) -> list[str]:
    """At most *sentences_max* sentences, the first of which says what the table is."""
    topics = [_shape, _missing, _correlated, _identifiers] if profile["rows"] else [_shape]
    sentences = [sentence for topic in topics for sentence in topic(profile)]
    if profile["rows"]:
        sentences += [
            each for column in profile["columns"] for each in _column(column, profile["rows"])
        ]
    return sentences[:sentences_max]


def number(value: float) -> str:
    """*value* as people write it: 1,234,567, 12.35, 0.00012, 1.5e+12."""
    size = abs(value)
    if size >= 1e12 or 0 < size < 1e-4:
        return f"{value:.3g}"
    text = f"{value:,.{0 if size >= 10_000 else 2 if size >= 1 else 4}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """A share as a percentage that is never rounded to all or nothing."""
    if 0 < share < 0.001:
        return "under 0.1%"
    if 0.999 < share < 1:
        return "over 99.9%"
    return f"{share * 100:.1f}".removesuffix(".0") + "%"


def is_identifier(column: Profile, rows: int) -> bool:
    """Whether every row has a value of its own, as ids and names of rows do."""
    return column["type"] in ("integer", "text") and rows >= 10 and column["distinct"] == rows


def related(profile: Profile) -> list[Profile]:
    """The correlations, but for those of identifiers."""
    columns = [each for each in profile["columns"] if is_identifier(each, profile["rows"])]
    names = {each["name"] for each in columns}
    return [each for each in profile["correlations"] if not {each["a"], each["b"]} & names]


def _name(name: str) -> str:
    return f"“{clip(name, 40)}”"


def _count(amount: int, one: str, many: str) -> str:
    return f"{amount:,} {one if amount == 1 else many}"


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _shape(profile: Profile) -> Iterator[str]:
    columns = _count(profile["column_count"], "column", "columns")
    if not profile["rows"]:
        yield f"The file has a header with {columns} and no rows."
        return
    kinds = Counter(_KINDS[column["type"]] for column in profile["columns"])
    parts = _listed([f"{amount} of {kind}" for kind, amount in kinds.most_common()])
    of = f"; the first {len(profile['columns'])} are" if profile["columns_omitted"] else ":"
    yield f"The table has {_count(profile['rows'], 'row', 'rows')} and {columns}{of} {parts}."


def _missing(profile: Profile) -> Iterator[str]:
    gaps = [each for each in profile["columns"] if each["missing"]]
    gaps.sort(key=lambda it: -it["missing"])
    worst = [f"{_name(it['name'])} ({percent(it['missing_share'])} of rows)" for it in gaps[:3]]
    if gaps:
        others = _count(len(gaps), "column has", "columns have")
        yield f"{others} missing values, most of all {_listed(worst)}."
    else:
        yield "No value is missing."


def _correlated(profile: Profile) -> Iterator[str]:
    strong = [each for each in related(profile) if abs(each["r"]) >= STRONG]
    for each in strong[:2]:
        how = "rise and fall together" if each["r"] > 0 else "move in opposite directions"
        yield f"{_name(each['a'])} and {_name(each['b'])} {how} (r = {each['r']:.2f})."
    if not strong and profile["correlations"]:
        yield "No two columns of numbers are strongly related."


def _identifiers(profile: Profile) -> Iterator[str]:
    ids = [_name(it["name"]) for it in profile["columns"] if is_identifier(it, profile["rows"])]
    if ids:
        verb = "has" if len(ids) == 1 else "have"
        yield f"{_listed(ids[:3])} {verb} a different value in every row."


def _column(column: Profile, rows: int) -> Iterator[str]:
    name, numbers = _name(column["name"]), column["numbers"]
    if dates := column["dates"]:
        yield f"{name} runs from {dates['earliest'][:10]} to {dates['latest'][:10]}."
    if numbers and abs(numbers["skewness"] or 0) >= SKEWED and numbers["mean"] is not None:
        edge = "max" if numbers["skewness"] > 0 else "min"
        yield (
            f"Half of {name} is at or below {number(numbers['median'])}; the {edge}imum "
            f"{number(numbers[edge])} moves the mean to {number(numbers['mean'])}."
        )
    if column["texts"] and column["distinct"] > 1:
        top = column["texts"]["top"][0]
        share = top["count"] / (rows - column["missing"])
        if share >= DOMINANT_SHARE:
            yield f"In {name}, {percent(share)} of the values are “{clip(top['value'], 40)}”."
    if column["exceptions_count"]:
        wrong = _listed([f"“{each}”" for each in column["exceptions"]])
        amount = _count(column["exceptions_count"], "value is not", "values are not")
        yield f"{name} would be numbers, but {amount} ({wrong})."
