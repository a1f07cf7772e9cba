"""A summary made of a text's own sentences: no model, no network, the same every time."""

import re
from collections import Counter

#: More of a text is not looked at.
CHARS_MAX = 200_000
SENTENCE_CHARS_MAX = 400

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_WORD = re.compile(r"[^\W\d_]{4,}")


def extract(text: str, sentences_max: int) -> str:
    """The sentences whose words come up most, in the order of the text; "" when it has none."""
    pieces = [" ".join(each.split()) for each in _SENTENCE.findall(text[:CHARS_MAX])]
    sentences = list(dict.fromkeys(each[:SENTENCE_CHARS_MAX] for each in pieces if len(each) > 1))
    words = [_WORD.findall(each.lower()) for each in sentences]
    often = Counter(word for each in words for word in each)

    # By the mean, or the longest would always win; a lone word says little, however frequent.
    weights = [sum(often[word] for word in each) / (len(each) + 3) for each in words]
    best = sorted(range(len(sentences)), key=lambda place: (-weights[place], place))
    return " ".join(sentences[place] for place in sorted(best[:sentences_max]))
