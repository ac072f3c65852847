"""How answers are made alike before they are compared."""

from __future__ import annotations

import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Lower case, without punctuation and articles."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words_only(text)).split())


def words_only(text: str) -> str:
    """Lower case, without punctuation, single spaces."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


# --- VQA v2 -----------------------------------------------------------------------------------------------------

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = ("a", "an", "the")
# Contractions that are often written without their apostrophe. Those that are a word of their own without it
# (its, were, well, shell, id) stay as they are.
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
    "i'm i've isn't it'd it'll let's ma'am might've mightn't must've mustn't needn't o'clock oughtn't shan't "
    "should've shouldn't somebody'd somebody'll somebody's someone'd someone'll someone's something'd something'll "
    "that'd that's there'd there're there's they'd they'll they're they've 'twas wasn't we've weren't what'll what're "
    "what's what've when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've "
    "wouldn't y'all you'd you'll you're you've"
)
_DOUBLE = (
    "couldn't've hadn't've he'd've i'd've it'd've mightn't've she'd've shouldn't've they'd've we'd've "
    "wouldn't've you'd've"
)
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}
for _word in _DOUBLE.split():  # either apostrophe may be missing, not both
    _head, _middle, _tail = _word.split("'")
    _APOSTROPHES |= {f"{_head}{_middle}'{_tail}": _word, f"{_head}'{_middle}{_tail}": _word}

_MARKS = ';/[]"{}()=+\\_-><@`,?!'


def vqa(text: str) -> str:
    """VQA v2's normalisation (Goyal et al. 2017, the evaluation of visualqa.org).

    Marks go where a space stands beside one of their kind or a comma separates thousands, else they become spaces;
    full stops go unless a digit follows; number words become digits, articles go, contractions get their apostrophe.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    thousands = re.search(r"\d,\d", text) is not None
    out = text
    for mark in _MARKS:
        joined = f"{mark} " in text or f" {mark}" in text or thousands
        out = out.replace(mark, "" if joined else " ")
    out = re.sub(r"\.(?!\d)", "", out).lower()
    kept = [_DIGITS.get(word, word) for word in out.split() if word not in _ARTICLES]
    return " ".join(_APOSTROPHES.get(word, word) for word in kept)
