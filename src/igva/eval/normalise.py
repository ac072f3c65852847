"""How answers are made alike before they are compared."""

from __future__ import annotations

import re
import unicodedata

_ARTICLES = ("a", "an", "the")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# 3.5 is not 35, and 2-4 not 24: marks inside and signs before a number are part of it
_OF_NUMBER = r"(?<=\d)[.,:/-](?=\d)|(?<!\w)[-.](?=\.?\d)"
_MARK = re.compile(rf"{_OF_NUMBER}|([^\w\s]|_)")


def plain(text: str) -> str:
    """Lower case, without punctuation and articles; an article that is all there is stays (it may be option A)."""
    words = words_only(text)
    return " ".join(word for word in words.split() if word not in _ARTICLES) or words


def words_only(text: str) -> str:
    """Lower case, without punctuation, single spaces; a text of nothing but punctuation stays."""
    text = " ".join(unicodedata.normalize("NFC", text).lower().split())
    bare = _MARK.sub(lambda found: "" if _falls(found[1]) else found[0], _THOUSANDS.sub("", text))
    return " ".join(bare.split()) or text


def _falls(mark: str | None) -> bool:
    """Whether a character is punctuation or a symbol; vowel signs of other scripts are neither."""
    return mark is not None and unicodedata.category(mark)[0] in "PS"


# --- VQA v2 -----------------------------------------------------------------------------------------------------

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
# The official script's contractions, as far as it can meet them in lower case. Those that are a word of their own
# without the apostrophe (its, were, well, shell, id) are not among them.
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd "
    "somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've "
    "something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't "
    "we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll "
    "you're you've"
)
_APOSTROPHES = {  # any one apostrophe may be missing
    word[:index] + word[index + 1 :]: word
    for word in _CONTRACTIONS.split()
    for index, letter in enumerate(word)
    if letter == "'"
}

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
