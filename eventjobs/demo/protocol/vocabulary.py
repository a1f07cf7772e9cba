"""The words that the review of protocol texts looks for, and those it knows."""

_WHEN = "leaves the time open. Say when, or how often, with a window."
_HOW_MUCH = "is not a number. Give the value, and its unit or range."
_WHO_DECIDES = "leaves the decision open. State the criterion, and who applies it."
_WHAT_ELSE = "leaves the list open. Name every item."
_DUTY = "does not say whether it is required. Use “must” or “will”, or “may” for what is optional."


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What is vague, and what to write instead; always as the end of a sentence about the word.
VAGUE = {
    "and/or": "can be read in three ways. Write “and”, “or”, or “at least one of”.",
    "about": _HOW_MUCH,
    "adequate": _WHO_DECIDES,
    "adequately": _WHO_DECIDES,
    "and so on": _WHAT_ELSE,
    "appropriate": _WHO_DECIDES,
    "appropriately": _WHO_DECIDES,
    "approximately": _HOW_MUCH,
    "around": _HOW_MUCH,
    "as applicable": _WHO_DECIDES,
    "as appropriate": _WHO_DECIDES,
    "as clinically indicated": _WHO_DECIDES,
    "as needed": _WHO_DECIDES,
    "as soon as possible": _WHEN,
    "at the discretion of": _WHO_DECIDES,
    "clinically significant": _WHO_DECIDES,
    "etc.": _WHAT_ELSE,
    "etc": _WHAT_ELSE,
    "frequently": _WHEN,
    "generally": _DUTY,
    "if necessary": _WHO_DECIDES,
    "if possible": _WHO_DECIDES,
    "immediately": _WHEN,
    "in a timely manner": _WHEN,
    "including but not limited to": _WHAT_ELSE,
    "minimal": _HOW_MUCH,
    "normal": "needs a range. Give the limits, or the laboratory's reference.",
    "normally": _DUTY,
    "occasionally": _WHEN,
    "periodically": _WHEN,
    "promptly": _WHEN,
    "recent": _WHEN,
    "recently": _WHEN,
    "regular": _WHEN,
    "regularly": _WHEN,
    "relevant": _WHO_DECIDES,
    "roughly": _HOW_MUCH,
    "several": _HOW_MUCH,
    "should": _DUTY,
    "significant": _HOW_MUCH,
    "sufficient": _HOW_MUCH,
    "suitable": _WHO_DECIDES,
    "usually": _DUTY,
    "various": _WHAT_ELSE,
    "when appropriate": _WHO_DECIDES,
    "where possible": _WHO_DECIDES,
}

#: Participles that do not end in -ed.
PARTICIPLES = (
    "begun", "bought", "brought", "built", "chosen", "cut", "done", "drawn", "driven", "fed",
    "found", "given", "held", "kept", "known", "led", "left", "lost", "made", "met", "paid",
    "put", "read", "run", "said", "seen", "sent", "set", "shown", "shut", "spent", "split",
    "taken", "told", "thought", "understood", "undergone", "withdrawn", "withheld", "worn",
    "written",
)  # fmt: skip

#: Words that look like participles after "is", and are not.
ADJECTIVES = _words("""
    advanced aged bed biased blessed concerned deceased detailed diseased experienced hundred
    impaired indeed interested limited married mixed naked need red related retired sacred seed
    sophisticated speed supposed tired unrelated untreated used wicked
""")

#: Words whose full stop does not end a sentence, without that full stop.
SHORTENED = _words("""
    approx ca cf dr e.g eg eq fig figs i.e ie incl max min mr mrs ms pp prof ref refs sec sect
    tab vol vs
""")

#: Abbreviations that need no definition in a protocol: places, units, numbers, everyday words.
KNOWN_ABBREVIATIONS = _words("""
    AM PM US USA UK EU UN OK ID PDF DNA RNA HIV AIDS CD CT MRI ECG EKG IV PI TV
    II III VI VII VIII IX XI XII CM MM KG MG ML NA AND OR NOT IF ALL ANY NO MUST
""")
