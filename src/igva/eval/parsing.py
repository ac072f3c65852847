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


def option(text: str, choices: Sequence[str]) -> int | None:
    """Which of the choices an answer names, by letter (``B``, ``(b)``, ``B. dog``, ``the answer is B``) or by text.

    A lone capital ``A`` before a word is an article, not a letter; an answer that names two choices names none.
    """
    letters = LETTERS[: len(choices)]
    text = text.strip()
    names = [plain(choice) for choice in choices]
    if plain(text) in names and names.count(plain(text)) == 1:
        return names.index(plain(text))
    inside = f"[{letters}{letters.lower()}]"
    for pattern in (
        rf"[\(\[]?({inside})[\)\]]?[.:,]?",  # nothing but the letter
        rf"[\(\[]({inside})[\)\]].*|({inside})[.:\)].*",  # (B) dog; B. dog
        rf".*\b(?:answer|option|choice)(?: is)?:?\s*[\(\[]?([{letters}])[\)\]]?(?:[\s.:,\)].*)?",
    ):
        if match := re.fullmatch(pattern, text, re.DOTALL | re.IGNORECASE if "answer" in pattern else re.DOTALL):
            letter = next(group for group in match.groups() if group)
            return letters.index(letter.upper())
    said = plain(text)
    found = [i for i, name in enumerate(names) if name and re.search(rf"\b{re.escape(name)}\b", said)]
    # "polar bear" names "bear" too: the longer one is meant
    found = [i for i in found if not any(j != i and f" {names[i]} " in f" {names[j]} " for j in found)]
    if len(found) == 1:
        return found[0]
    if found:
        return None
    alone = {letter for letter in re.findall(rf"\b([{letters}])\b(?!')", text) if letter not in "AI"}
    return letters.index(alone.pop()) if len(alone) == 1 else None


def box(text: str) -> Box | None:
    """The first four numbers as left, top, right, bottom; None unless right > left and bottom > top."""
    numbers = [float(found) for found in re.findall(_NUMBER, text, re.IGNORECASE)[:4]]
    if len(numbers) < 4:
        return None
    left, top, right, bottom = numbers
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
