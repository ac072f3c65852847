"""What an answer says: yes or no, one of several options, a box, a number. None where it says nothing of the kind."""

from __future__ import annotations

import re
from collections.abc import Sequence

from igva.eval.normalise import plain

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"

Box = tuple[float, float, float, float]


def yes_no(text: str) -> str | None:
    """``yes`` or ``no``: a negation in the first sentence is a no, otherwise the word yes must stand there.

    POPE's reading (Li et al. 2023), which however takes all that is not a no for a yes.
    """
    words = re.findall(r"[a-z]+(?:'t)?", text.lower().replace("’", "'").split(".")[0])
    if any(word in ("no", "not", "none") or word.endswith("n't") for word in words):
        return "no"
    return "yes" if "yes" in words else None


def prefix_yes_no(text: str) -> str | None:
    """``yes`` or ``no`` within the first four characters: MME's reading (Fu et al. 2023)."""
    start = text.strip().lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def option(text: str, choices: Sequence[str]) -> int | None:
    """Which of the choices an answer names, by letter (``B``, ``(b)``, ``B. dog``, ``the answer is B``) or by text.

    A capital ``A`` before a word is an article, and ``I`` a pronoun, unless nothing else can be meant. An answer that
    names two choices names none.
    """
    letters = LETTERS[: len(choices)]
    text = re.sub(r"[*`]", "", text).strip()
    names = [plain(choice) for choice in choices]
    said = plain(text)
    if names.count(said) == 1:
        return names.index(said)
    any_case = f"[{letters}{letters.lower()}]"
    patterns = (
        rf"[(\[]?({any_case})[)\]]?[.:,]?",  # nothing but the letter
        rf"[(\[]({any_case})[)\]].*",  # (B) dog
        rf"({any_case})[.:)].*",  # B. dog
        rf"([{letters}])(?:\s*\n| [-–—] ).*",  # B, and on the next line why
        rf".*\b(?i:answer|option|choice)(?i: is)?:?\s*[(\[]?({any_case})(?:[.:,)\]].*|\s*\n.*|)",  # the answer is B.
    )
    for pattern in patterns:
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return letters.index(match[1].upper())
    named = [i for i, name in enumerate(names) if name and f" {name} " in f" {said} "]
    # "polar bear" names "bear" too: the longer one is meant
    named = [i for i in named if not any(j != i and f" {names[i]} " in f" {names[j]} " for j in named)]
    if len(named) == 1:
        return named[0]
    if match := re.search(rf"\b(?i:answer|option|choice)(?i: is)?:? ([{letters}])\b", text):  # option A fits best
        return letters.index(match[1])
    if named:
        return None
    alone = set(re.findall(rf"\b(?![AI] (?!and\b|or\b|is\b)[a-z])([{letters}])\b(?!')", text))
    return letters.index(alone.pop()) if len(alone) == 1 else None


def box(text: str) -> Box | None:
    """The first four numbers in a row as left, top, right, bottom; None unless right > left and bottom > top.

    In a row: nothing but spaces, commas, semicolons and brackets stand between them, as in ``[1, 2, 3, 4]`` and
    ``(1,2),(3,4)``.
    """
    row = re.search(rf"(?<![\w.]){_NUMBER}(?:[\s,;()\[\]]+{_NUMBER}){{3}}", text, re.IGNORECASE)
    if row is None:
        return None
    left, top, right, bottom = map(float, re.findall(_NUMBER, row[0], re.IGNORECASE))
    return (left, top, right, bottom) if right > left and bottom > top else None


def number(text: str) -> float | None:
    """A number that is the whole text; a per cent sign divides by 100 (as ChartQA's relaxed accuracy reads it)."""
    text = text.strip()
    percent = text.endswith("%")
    try:
        value = float(text.rstrip("%"))
    except ValueError:
        return None
    return value / 100 if percent else value
