"""A review of the text of a clinical protocol: what a careful editor would ask to change.

Places in the text count characters as Python does (code points). No pattern looks at a character
more than a few times in any text: a run is entered at its start, repetitions are bounded.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.resources import files
from itertools import count
from typing import Any, NamedTuple

TRUNCATED_CHARS = 20_000
SUGGESTIONS_MAX = 200
EXCERPT_CHARS_MAX = 160
HEADING_CHARS_MAX = 200

_VOCABULARY = tomllib.loads(files(__package__).joinpath("vocabulary.toml").read_text("utf-8"))
_WORDS = {name: frozenset(words.split()) for name, words in _VOCABULARY["words"].items()}
_ADVICE = {word: each["advice"] for each in _VOCABULARY["vague"] for word in each["words"]}

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
#: A sentence ends at a full stop before a space, or at the end of a paragraph or list item.
_END = re.compile(
    r"(?<![.!?])[.!?]++[\"'\u201d\u2019)\]]*(?=\s)|\n\s*\n|\n(?=\s*(?:[-*\u2022\u2013]|\d{1,3}[.)])\s)"
)
_PASSIVE = re.compile(
    r"\b(?:am|is|are|was|were|be|been|being)\s+(?:(?:not|\w{1,20}ly)\s+){0,2}"
    rf"(?P<participle>\w{{2,20}}ed|{'|'.join(sorted(_WORDS['participles']))})\b",
    re.IGNORECASE,
)
_VAGUE = re.compile(
    rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(_ADVICE, key=len, reverse=True)))})(?!\w)",
    re.IGNORECASE,
)
_SHORT = r"[A-Z][A-Z0-9]{0,6}[A-Z](?:-\d{1,3})?"
_ABBREVIATION = re.compile(rf"(?<![\w-]){_SHORT}(?=s?(?!\w))")
_OPEN, _CLOSE = r"[(\[]\s{0,3}[\u201c\"']?", r"[\u201d\"']?\s{0,3}[)\],;]"
_MEANS = r"(?:[(\[]|[:=\u2013-]\s|means\s|stands for\s)\s{0,3}[A-Za-z][a-z]{1,30}[\s-]{1,3}[A-Za-z]"
_DEFINED = (  # in brackets after words, or followed by words that say what it means
    rf"[a-z0-9][\u201d\"']?\s{{0,3}}{_OPEN}({_SHORT})s?{_CLOSE}",
    rf"(?<![\w-])({_SHORT})s?\s{{0,3}}{_MEANS}",
)


class Finding(NamedTuple):
    """What a rule finds in text[start:end], and in *text* what to do about it."""

    start: int
    end: int
    kind: str
    text: str


def review(text: str, *, truncate: bool, report: Callable[[float, str], None]) -> dict[str, Any]:
    """Measures of *text*, and at most SUGGESTIONS_MAX suggestions in the order of the text.

    With *truncate*, only the first TRUNCATED_CHARS characters count. *report* gets the share done
    and a message, and may raise to stop the work.
    """
    total = len(text)
    text = text[:TRUNCATED_CHARS] if truncate else text
    report(0.0, "Splitting the text into sentences")
    sentences = list(split_sentences(text))
    report(0.2, "Measuring how hard it is to read")
    measures = _measure(text, sentences)
    report(0.5, "Looking for what could be clearer")
    findings = sorted([*_wordings(text, sentences), *_abbreviations(text)])
    report(0.9, "Writing suggestions")
    # Where there are too many, each kind keeps as many as the others.
    places = {kind: count() for kind in {each.kind for each in findings}}
    ranked = sorted((next(places[each.kind]), each) for each in findings)
    shown = sorted(each for _, each in ranked[:SUGGESTIONS_MAX])
    return {
        **measures,
        "truncated": len(text) < total,
        "characters_total": total,
        "characters_analyzed": len(text),
        "suggestion_counts": dict(Counter(each.kind for each in findings)),
        "suggestions_total": len(findings),
        "suggestions": [
            {"id": f"{it.kind}-{number}", "excerpt": _excerpt(text, it), **it._asdict()}
            for number, it in enumerate(shown, 1)
        ],
    }


def split_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where the sentences begin and end; abbreviations such as "e.g." do not end one."""
    start = 0
    for stop, after in [*(match.span() for match in _END.finditer(text)), (len(text), len(text))]:
        if text[stop : stop + 1] == "." and _goes_on(text, stop, after):
            continue
        sentence = text[start:after]
        if _WORD.search(sentence):
            begin = start + len(sentence) - len(sentence.lstrip())
            yield begin, begin + len(sentence.strip())
        start = after


def _goes_on(text: str, stop: int, after: int) -> bool:
    """Whether the full stop at *stop* is inside a sentence."""
    before = text[max(0, stop - 12) : stop].rsplit(None, 1)
    word = before[-1].lstrip("([").lower() if before else ""
    if word in _WORDS["shortened"] or re.fullmatch(r"[a-z](?:\.[a-z])*", word):
        return True
    following = text[after : after + 80].lstrip()[:1]
    return following.islower() or (word in ("no", "nos") and following.isdigit())


def syllables(word: str) -> int:
    """About how many syllables an English word has: at least one."""
    lower = word.lower()
    silent_e = lower.endswith("e") and not lower.endswith(("le", "ee", "ie"))
    silent_ed = lower.endswith("ed") and not lower.endswith(("ted", "ded"))
    return max(1, len(re.findall(r"[aeiouy]+", lower)) - silent_e - silent_ed)


def _measure(text: str, sentences: list[tuple[int, int]]) -> dict[str, Any]:
    words = _WORD.findall(text)
    if not words or not sentences:
        return {"words": 0, "sentences": 0, "longest_sentence_words": 0, "readability": None}
    per_sentence = len(words) / len(sentences)
    per_word = sum(n * syllables(word) for word, n in Counter(words).items()) / len(words)
    ease = 206.835 - 1.015 * per_sentence - 84.6 * per_word
    levels = {"easy": 70, "fairly difficult": 50, "difficult": 30, "very difficult": ease}
    return {
        "words": len(words),
        "sentences": len(sentences),
        "longest_sentence_words": max(len(_WORD.findall(text, *each)) for each in sentences),
        "readability": {
            "flesch_reading_ease": round(ease, 1),
            "flesch_kincaid_grade": round(0.39 * per_sentence + 11.8 * per_word - 15.59, 1),
            "words_per_sentence": round(per_sentence, 1),
            "syllables_per_word": round(per_word, 2),
            "level": next(level for level, least in levels.items() if ease >= least),
        },
    }


def _wordings(text: str, sentences: list[tuple[int, int]]) -> Iterator[Finding]:
    for start, end in sentences:
        words = len(_WORD.findall(text, start, end))
        if words > 30:
            advice = f"This sentence has {words} words. Split it, one requirement in each sentence."
            yield Finding(start, end, "long_sentence", advice)
    for match in _PASSIVE.finditer(text):
        if match["participle"].lower() not in _WORDS["adjectives"]:
            phrase = " ".join(match[0].split())
            advice = f"“{phrase}” does not say who does it. Name who is responsible."
            yield Finding(*match.span(), "passive_voice", advice)
    for match in _VAGUE.finditer(text):
        yield Finding(*match.span(), "vague_wording", f"“{match[0]}” {_ADVICE[match[0].lower()]}")


def _abbreviations(text: str) -> Iterator[Finding]:
    """Each abbreviation that is nowhere spelled out, at its first use."""
    defined = _WORDS["abbreviations"].union(*(re.findall(form, text) for form in _DEFINED))
    uses = [each for each in _ABBREVIATION.finditer(text) if each[0] not in defined]
    uses = [each for each in uses if not _in_heading(text, each.start())]
    counts = Counter(each[0] for each in uses)
    for short, first in {each[0]: each for each in reversed(uses)}.items():
        times = "once" if counts[short] == 1 else f"{counts[short]} times"
        advice = f"“{short}” is used {times} and never spelled out. Define it at first use."
        yield Finding(*first.span(), "undefined_abbreviation", advice)


def _in_heading(text: str, at: int) -> bool:
    """Whether the line is all capitals: a heading, whose words are no abbreviations."""
    before = text[max(0, at - HEADING_CHARS_MAX) : at].rpartition("\n")
    line = before[2] + text[at : at + HEADING_CHARS_MAX].partition("\n")[0]
    is_whole = bool(before[1]) or at <= HEADING_CHARS_MAX
    return is_whole and line.isupper() and len(_WORD.findall(line)) > 1


def _excerpt(text: str, place: Finding) -> str:
    """The place with some words around it, on one line. No word is cut in two."""
    start, end = place.start, min(place.end, place.start + EXCERPT_CHARS_MAX)
    around = (EXCERPT_CHARS_MAX - (end - start)) // 2
    before, after = text[max(0, start - around) : start], text[end : end + around]
    if len(before) < start:
        before = "…" + before.partition(" ")[2]
    if len(after) < len(text) - end:
        after = after.rpartition(" ")[0] + "…"
    return " ".join(f"{before}{text[start:end]}{after}".split())
