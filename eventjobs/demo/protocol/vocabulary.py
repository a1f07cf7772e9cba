"""The words that the review of protocol texts looks for, and those it knows."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Advice, and the vague words that it is about. It continues a sentence about the word.
_VAGUE = {
    "leaves the time open. Say when, or how often, with a window.": (
        "as soon as possible|frequently|immediately|in a timely manner|occasionally|periodically"
        "|promptly|recent|recently|regular|regularly"
    ),
    "is not a number. Give the value, and its unit or range.": (
        "about|approximately|around|minimal|roughly|several|significant|sufficient"
    ),
    "leaves the decision open. State the criterion, and who applies it.": (
        "adequate|adequately|appropriate|appropriately|as applicable|as appropriate"
        "|as clinically indicated|as needed|at the discretion of|clinically significant"
        "|if necessary|if possible|relevant|suitable|when appropriate|where possible"
    ),
    "leaves the list open. Name every item.": (
        "and so on|etc.|etc|including but not limited to|various"
    ),
    "does not say whether it is required. Use “must” or “will”, or “may” for what is optional.": (
        "generally|normally|should|usually"
    ),
    "can be read in three ways. Write “and”, “or”, or “at least one of”.": "and/or",
    "needs a range. Give the limits, or the laboratory's reference.": "normal",
}
VAGUE = {word: advice for advice, words in _VAGUE.items() for word in words.split("|")}

#: Participles that do not end in -ed.
PARTICIPLES = _words("""
    begun bought brought built chosen cut done drawn driven fed found given held kept known led left
    lost made met paid put read run said seen sent set shown shut spent split taken told thought
    understood undergone withdrawn withheld worn written
""")
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
