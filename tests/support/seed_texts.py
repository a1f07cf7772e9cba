"""The descriptions of five front ends, their snippets, and the bodies that they print."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import orjson

ROOT = Path(__file__).parents[2]
#: The texts themselves, where they are beside the checkout; their copies otherwise.
ORIGINALS = ROOT.parent / "shared" / "seeds"
COPIES = ROOT / "tests" / "seeds" / "texts"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\dZ?|\.\.\.)")
_ID = re.compile(
    r"uuid(-string)?|job_\w+|abc-123-def-456|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)


class Snippet(NamedTuple):
    """A fenced block of a text. *key* is the seed's name and the number of the block in it."""

    key: str
    language: str
    code: str

    @property
    def json(self) -> Any:
        """A body as it is printed: what is left out is empty, and a comment is no part of it."""
        text = re.sub(r"/\*.*?\*/|\.\.\.(?=\s*[}\]])", "", self.code)
        return orjson.loads(re.sub(r"\b0-100\b", "100", text))


def texts() -> dict[str, str]:
    """Each text by the name of its seed: 000, …"""
    folder = ORIGINALS if ORIGINALS.is_dir() else COPIES
    return {path.name[:3]: path.read_text() for path in sorted(folder.glob("*.txt"))}


def snippets() -> dict[str, Snippet]:
    """All fenced blocks of all texts, by their keys."""
    blocks = {}
    for seed, text in texts().items():
        for number, (language, code) in enumerate(_FENCE.findall(text)):
            blocks[f"{seed}.{number}"] = Snippet(f"{seed}.{number}", language, code)
    return blocks


def differences(printed: Any, actual: Any, at: str = "") -> list[str]:
    """Where *actual* is not as *printed*, which may stand for other values of the same form.

    It may have more fields.
    """
    if isinstance(printed, dict):
        if not isinstance(actual, dict):
            return [f"{at}: {actual!r} is no object"]
        return [
            each
            for name, value in printed.items()
            for each in (
                differences(value, actual[name], f"{at}.{name}")
                if name in actual
                else [f"{at}.{name} is missing"]
            )
        ]
    return [] if _is_like(printed, actual) else [f"{at}: {actual!r} is not like {printed!r}"]


def _is_like(printed: Any, actual: Any) -> bool:
    match printed:
        case list():
            return isinstance(actual, list)
        case bool() | None:
            return actual is printed
        case int() | float():
            return isinstance(actual, int | float)
        case str() if _TIME.match(printed):
            form = re.sub(r"\d", r"\\d", re.escape(printed)).replace(r"\.\.\.", ".*")
            return isinstance(actual, str) and re.fullmatch(rf"{form}(\.\d+)?", actual) is not None
        case str() if _ID.fullmatch(printed):
            return isinstance(actual, str) and printed.startswith("job_") == actual.startswith(
                "job_"
            )
        case str() if "|" in printed:
            return actual in printed.split("|")
        case str() if "..." in printed or re.match(r"/jobs/|file://", printed):
            return isinstance(actual, str)
        case _:
            return bool(actual == printed)
