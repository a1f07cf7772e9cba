"""A review of the text of a clinical protocol: what a careful editor would ask to change.

Everything here is rules on the words, no model and no network, so the same text always gets the
same suggestions. Places in the text count characters as Python does (code points).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

from eventjobs.demo.protocol.vocabulary import (
    ADJECTIVES,
    KNOWN_ABBREVIATIONS,
    PARTICIPLES,
    SHORTENED,
    VAGUE,
)

TRUNCATED_CHARS = 20_000
SUGGESTIONS_MAX = 200
EXCERPT_CHARS_MAX = 160
SENTENCE_WORDS_MAX = 30
HEADING_CHARS_MAX = 200

#: Called with the share done (0 to 1) and a message; may raise to stop the work.
Report = Callable[[float, str], None]

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SYLLABLE = re.compile(r"[aeiouy]+")
#: A sentence ends at a full stop before a space, or at the end of a paragraph or list item.
#: No pattern here looks at a character more than a few times, whatever the text: a run is only
#: ever entered at its start, and repetitions are bounded.
_END = re.compile(
    r"(?<![.!?])[.!?]++[\"'\u201d\u2019)\]]*(?=\s)|\n\s*\n|\n(?=\s*(?:[-*\u2022\u2013]|\d{1,3}[.)])\s)"
)
_PASSIVE = re.compile(
    r"\b(?:am|is|are|was|were|be|been|being)\s+(?:(?:not|\w{1,20}ly)\s+){0,2}"
    r"(?P<participle>\w{2,20}ed|" + "|".join(PARTICIPLES) + r")\b",
    re.IGNORECASE,
)
_VAGUE = re.compile(
    r"(?<!\w)(?:"
    + "|".join(re.escape(each) for each in sorted(VAGUE, key=len, reverse=True))
    + r")(?!\w)",
    re.IGNORECASE,
)
_SHORT = r"[A-Z][A-Z0-9]{0,6}[A-Z](?:-\d{1,3})?"
_ABBREVIATION = re.compile(rf"(?<![\w-]){_SHORT}(?=s?(?!\w))")
#: In brackets after words, or followed by words that say what it means.
_DEFINED = (
    re.compile(
        r"[a-z0-9][\u201d\"']?\s{0,3}[(\[]\s{0,3}[\u201c\"']?"
        rf"(?P<short>{_SHORT})s?[\u201d\"']?\s{{0,3}}[)\],;]"
    ),
    re.compile(
        rf"(?<![\w-])(?P<short>{_SHORT})s?\s{{0,3}}(?:[(\[]|[:=\u2013-]\s|means\s|stands for\s)"
        r"\s{0,3}[A-Za-z][a-z]{1,30}[\s-]{1,3}[A-Za-z]"
    ),
)


@dataclass(frozen=True, slots=True)
class Span:
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """*text* is what to do; *start* and *end* are the place in the text it speaks of."""

    id: str
    kind: str
    text: str
    excerpt: str
    start: int
    end: int


#: What a rule finds: kind, advice, place.
_Found = tuple[str, str, Span]


def review(text: str, *, truncate: bool, report: Report) -> dict[str, Any]:
    """Measures of *text*, and at most SUGGESTIONS_MAX suggestions in the order of the text.

    With *truncate* only the first TRUNCATED_CHARS characters are looked at, and the result says so.
    When there are too many suggestions, each kind keeps a fair share of its first ones.
    """
    total = len(text)
    if truncate:
        text = text[:TRUNCATED_CHARS]
    report(0.0, "Splitting the text into sentences")
    sentences = list(split_sentences(text))
    report(0.2, "Measuring how hard it is to read")
    measures = _measure(text, sentences)
    report(0.5, "Looking for what could be clearer")
    found = sorted(
        chain(_long(text, sentences), _passive(text), _vague(text), _abbreviations(text)),
        key=lambda each: (each[2].start, each[2].end, each[0]),
    )
    report(0.9, "Writing suggestions")
    return {
        **measures,
        "truncated": len(text) < total,
        "characters_total": total,
        "characters_analyzed": len(text),
        "suggestion_counts": dict(Counter(kind for kind, _, _ in found)),
        "suggestions_total": len(found),
        "suggestions": [
            asdict(
                Suggestion(f"{kind}-{number}", kind, advice, _excerpt(text, at), at.start, at.end)
            )
            for number, (kind, advice, at) in enumerate(_fair(found), 1)
        ],
    }


def split_sentences(text: str) -> Iterator[Span]:
    """The sentences of *text*; abbreviations such as "e.g." do not end one."""
    start = 0
    for end in _END.finditer(text):
        if end[0].startswith(".") and _goes_on(text, end.start(), end.end()):
            continue
        yield from _trimmed(text, start, end.end())
        start = end.end()
    yield from _trimmed(text, start, len(text))


def _goes_on(text: str, stop: int, after: int) -> bool:
    """Whether the full stop at *stop* is inside a sentence."""
    before = text[max(0, stop - 12) : stop].rsplit(None, 1)
    word = before[-1].lstrip("([").lower() if before else ""
    if word in SHORTENED or re.fullmatch(r"[a-z](?:\.[a-z])*", word):
        return True
    following = text[after : after + 80].lstrip()[:1]
    return following.islower() or (word in ("no", "nos") and following.isdigit())


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    inner = text[start:end]
    start += len(inner) - len(inner.lstrip())
    end -= len(inner) - len(inner.rstrip())
    if start < end and _WORD.search(text, start, end):
        yield Span(start, end)


def syllables(word: str) -> int:
    """About how many syllables an English word has: at least one."""
    lower = word.lower()
    count = len(_SYLLABLE.findall(lower))
    if lower.endswith("e") and not lower.endswith(("le", "ee", "ie")):
        count -= 1
    if lower.endswith("ed") and not lower.endswith(("ted", "ded")):
        count -= 1
    return max(1, count)


def _measure(text: str, sentences: list[Span]) -> dict[str, Any]:
    words = [word[0] for word in _WORD.finditer(text)]
    lengths = [len(_WORD.findall(text, each.start, each.end)) for each in sentences]
    if not words or not sentences:
        return {"words": 0, "sentences": 0, "longest_sentence_words": 0, "readability": None}
    known = {word: syllables(word) for word in set(words)}
    per_sentence = len(words) / len(sentences)
    per_word = sum(known[word] for word in words) / len(words)
    ease = 206.835 - 1.015 * per_sentence - 84.6 * per_word
    return {
        "words": len(words),
        "sentences": len(sentences),
        "longest_sentence_words": max(lengths),
        "readability": {
            "flesch_reading_ease": round(ease, 1),
            "flesch_kincaid_grade": round(0.39 * per_sentence + 11.8 * per_word - 15.59, 1),
            "words_per_sentence": round(per_sentence, 1),
            "syllables_per_word": round(per_word, 2),
            "level": _level(ease),
        },
    }


def _level(ease: float) -> str:
    levels = ((70, "easy"), (50, "fairly difficult"), (30, "difficult"))
    return next((word for least, word in levels if ease >= least), "very difficult")


def _long(text: str, sentences: list[Span]) -> Iterator[_Found]:
    for each in sentences:
        words = len(_WORD.findall(text, each.start, each.end))
        if words > SENTENCE_WORDS_MAX:
            advice = f"This sentence has {words} words. Split it, one requirement in each sentence."
            yield "long_sentence", advice, each


def _passive(text: str) -> Iterator[_Found]:
    for match in _PASSIVE.finditer(text):
        if match["participle"].lower() in ADJECTIVES:
            continue
        phrase = " ".join(match[0].split())
        advice = f"“{phrase}” does not say who does it. Name who is responsible."
        yield "passive_voice", advice, Span(*match.span())


def _vague(text: str) -> Iterator[_Found]:
    for match in _VAGUE.finditer(text):
        word = match[0].lower()
        yield "vague_wording", f"“{match[0]}” {VAGUE[word]}", Span(*match.span())


def _abbreviations(text: str) -> Iterator[_Found]:
    """Each abbreviation that is nowhere spelled out, at its first use."""
    defined = (each["short"] for form in _DEFINED for each in form.finditer(text))
    known = KNOWN_ABBREVIATIONS.union(defined)
    places: dict[str, list[Span]] = {}
    for match in _ABBREVIATION.finditer(text):
        if match[0] not in known and not _in_heading(text, match.start()):
            places.setdefault(match[0], []).append(Span(*match.span()))
    for short, spans in places.items():
        times = "once" if len(spans) == 1 else f"{len(spans)} times"
        advice = f"“{short}” is used {times} and never spelled out. Define it at first use."
        yield "undefined_abbreviation", advice, spans[0]


def _in_heading(text: str, at: int) -> bool:
    """Whether the line is all capitals: a heading, whose words are no abbreviations."""
    start = text.rfind("\n", max(0, at - HEADING_CHARS_MAX), at) + 1
    if not start and at > HEADING_CHARS_MAX:
        return False
    line = text[start : at + HEADING_CHARS_MAX].partition("\n")[0]
    return line.isupper() and len(_WORD.findall(line)) > 1


def _fair(found: list[_Found]) -> list[_Found]:
    """The first ones of each kind, in the order of the text, when there are too many."""
    if len(found) <= SUGGESTIONS_MAX:
        return found
    turns: Counter[str] = Counter()
    ranked = []
    for place, each in enumerate(found):
        ranked.append((turns[each[0]], place))
        turns[each[0]] += 1
    kept = sorted(place for _, place in sorted(ranked)[:SUGGESTIONS_MAX])
    return [found[place] for place in kept]


def _excerpt(text: str, at: Span) -> str:
    """What is at the place with some words around it, on one line."""
    around = max(0, (EXCERPT_CHARS_MAX - (at.end - at.start)) // 2)
    start, end = max(0, at.start - around), min(len(text), at.end + around)
    if end - start > EXCERPT_CHARS_MAX:
        end = start + EXCERPT_CHARS_MAX
    # Cut at spaces, so that no word is torn, unless that would cut into the place itself.
    if start and (space := text.find(" ", start, at.start)) >= 0:
        start = space + 1
    least = at.end if at.end < end else at.start + EXCERPT_CHARS_MAX // 2
    if end < len(text) and (space := text.rfind(" ", least, end)) >= 0:
        end = space
    inner = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{inner}{'…' if end < len(text) else ''}"
