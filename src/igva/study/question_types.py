"""What kind of question it is, by its words alone."""

from __future__ import annotations

import re

RULE = (
    "A question's type is its first question word (what, which, who, where, when, why, how many, how), or is there, "
    "or yes or no where it begins with an auxiliary verb; an instruction begins with none of them and asks nothing."
)
_AUXILIARIES = "is are was were am do does did can could will would should shall may might must has have had"
_OPENINGS = (("how many", "how many"), ("how much", "how many"), ("is there", "is there"), ("are there", "is there"))
_WORDS = {"what": "what", "which": "which", "who": "who", "whose": "who", "where": "where", "when": "when"} | {
    "why": "why",
    "how": "how",
}


def question_type(text: str) -> str:
    """One of the types of ``RULE``; only the first line counts, since choices may follow it."""
    lines = text.strip().lower().splitlines()
    words = re.findall(r"[a-z]+", lines[0]) if lines else []
    for start in range(len(words)):
        pair = " ".join(words[start : start + 2])
        for opening, name in _OPENINGS:
            if pair == opening and (start == 0 or opening.startswith("how")):
                return name
        if start == 0 and words[0] in _AUXILIARIES.split():
            return "yes or no"
        if words[start] in _WORDS:
            return _WORDS[words[start]]
    return "instruction" if words else "other"
