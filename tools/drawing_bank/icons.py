"""The icon sets of npm's @iconify/json: which may be used, and which of their icons show which name."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from probe_pack.files import read_table
from probe_pack.icons import NOT_IT as EMOJI_NOT_IT
from probe_pack.icons import slug_in

from drawing_bank.names import EMOJI, GUARDED, core, lookup

FREE = re.compile(r"(MIT|Apache-2\.0|ISC|BSD-\d-Clause|CC0-1\.0|CC-BY-[34]\.0|OFL-1\.1|MPL-2\.0|Unlicense)$")
SHARE_ALIKE = ("openmoji", "emojione-v1")  # CC-BY-SA-4.0: whole hands, and of the pack's already
# Never: the hands of the test sets (with all else that their authors drew), and brands.
NEVER = re.compile(r"twemoji|streamline|brands|logo")
# Flags and the like, copies of sets that are here, and one that is drawn too crudely.
LEFT_OUT = frozenset(
    [
        "fa",
        "fa-solid",
        "fa-regular",
        "fa6-solid",
        "fa6-regular",
        "heroicons-outline",
        "heroicons-solid",
        "bx",
        "bxs",
        "pepicons",
        "material-symbols-light",
        "famicons",
        "feather",
        "iconmind",
        "pepicons-pencil",
        "bpmn",
        "academicons",
        "svg-spinners",
        "flagpack",
        "flag",
        "cif",
        "circle-flags",
        "ginetex",
        "gis",
        "fad",
    ]
)
# Ends of a slug that say how a thing is drawn, not what.
HOW = frozenset(
    [
        "outline",
        "outlined",
        "fill",
        "filled",
        "bold",
        "duotone",
        "linear",
        "broken",
        "light",
        "thin",
        "line",
        "lines",
        "solid",
        "sharp",
        "round",
        "rounded",
        "regular",
        "twotone",
        "two-tone",
        "color",
        "o",
        "alt",
        "stroke",
        "sm",
        "md",
        "lg",
        "xl",
        "xs",
        "large",
        "small",
        "mini",
        "micro",
        "i",
        "s",
        "l",
        "b",
        "duo",
        "curved",
        "standard",
        "flat",
        "glyph",
        "negative",
        "variant",
        "bulk",
        "emoji",
        "icon",
        "simple",
        "straight",
    ]
)
FIRST = frozenset(["food", "animal", "fruit", "emoji", "baseline", "sharp", "outline", "round", "twotone", "si", "cil"])
# Names that a set's icons of that name do not show.
NOT_IT = EMOJI_NOT_IT | {"material-symbols": "toast", "ls": "cloud", "picon": "croissant wood", "pinhead": "hotdog"}
# Icons chosen by eye for the pack; they alone decide on the pack's names in these sets.
CHOSEN = Path(__file__).parent.parent / "probe_pack" / "icons"
CHOSEN_FOR = {"openmoji": "openmoji", "flat-color-icons": "flat-color-icons", "game-icons": "game-icons", "mdi": "mdi"}
CHOSEN_FOR |= {"lucide": "lucide"}
CHOSEN_FOR |= {f"icon-park{end}": "icon-park" for end in ("", "-outline", "-solid", "-twotone")}


@dataclass(frozen=True)
class Icon:
    """One icon of a set that shows a name."""

    style: str
    slug: str
    name: str


def usable(style: str, row: dict[str, Any]) -> bool:
    """Whether a set of collections.json may be used."""
    if NEVER.search(style) or style in LEFT_OUT or row.get("category") == "Logos":
        return False
    if row["author"]["name"] == "Streamline":
        return False
    if row.get("category") == "Programming" and style != "codicon":
        return False
    return bool(FREE.match(row["license"]["spdx"])) or style in SHARE_ALIKE


def licence(style: str, row: dict[str, Any]) -> str:
    """A set's licence; of FxEmojis that of the drawings, where the package states the code's."""
    return "CC-BY-4.0" if style == "fxemoji" else row["license"]["spdx"]


def author(row: dict[str, Any]) -> str:
    """A set's author."""
    return row["author"]["name"]


@cache
def chosen(package: str) -> dict[str, list[str]]:
    """Slug -> names of a table of icons chosen by eye."""
    found: dict[str, list[str]] = {}
    for name, slugs in read_table(CHOSEN / f"{package}.tsv"):
        for slug in slugs.split():
            found.setdefault(slug, []).append(name)
    return found


def _bare(slug: str) -> Iterator[str]:
    """A slug, and it without the words that say how it is drawn, one at a time."""
    words = slug.split("-")
    yield slug
    while len(words) > 1 and (words[-1] in HOW or re.fullmatch(r"\d\d?(px)?", words[-1])):
        words.pop()
        yield "-".join(words)
    if len(words) > 1 and words[0] in FIRST:
        yield "-".join(words[1:])


def _kind(slug: str) -> str:
    """How an icon is drawn: one of a few ways that look different."""
    for kind, words in (
        ("duotone", ("duotone", "twotone", "two-tone", "bulk", "duo", "color")),
        ("filled", ("fill", "filled", "solid", "bold", "glyph")),
        ("other", ("sharp", "thin", "light", "broken", "flat")),
    ):
        if any(word in slug.split("-") for word in words):
            return kind
    return "plain"


def named(style: str, slug: str, table: dict[str, list[str]]) -> tuple[str, list[str]]:
    """The bare slug and the names that an icon shows: () where it shows none."""
    pick = chosen(CHOSEN_FOR[style]) if style in CHOSEN_FOR else None
    for bare in _bare(slug):
        names = [name for name in table.get(bare, ()) if pick is None or name not in core()]
        names = [name for name in names if allowed(style, bare, slug, name)]
        if pick is not None:
            names += pick.get(bare, [])
        if names:
            return bare, names
    return slug, []


def allowed(style: str, bare: str, slug: str, name: str) -> bool:
    """Whether a name may be read off this set's slug: a guarded one in few, and none off an icon known to be wrong."""
    if name in NOT_IT.get(style, "").split():
        return False
    if name not in GUARDED or style in EMOJI or bare != name:
        return True
    return style in GUARDED[name].split() or slug.startswith(("food-", "fruit-", "animal-"))


def in_set(style: str, icons: dict[str, Any], variants: int) -> list[Icon]:
    """The icons of a set that show names: of each thing at most ``variants`` that are drawn differently."""
    table = lookup(style in EMOJI)
    seen: dict[tuple[str, str], set[str]] = {}
    found: list[Icon] = []
    slugs = sorted([*icons["icons"]], key=lambda slug: (len(slug), slug))
    aliases = icons.get("aliases", {})
    slugs += [slug for slug in sorted(aliases) if set(aliases[slug]) == {"parent"}]
    undashed = {slug_in(style, bare): bare for bare in table} if style == "fxemoji" else {}
    parents: set[tuple[str, str]] = set()
    for slug in slugs:
        bare, names = named(style, undashed.get(slug, slug), table)
        parent = aliases[slug]["parent"] if slug in aliases else slug
        for name in names:
            ways = seen.setdefault((name, bare), set())
            if (name, parent) in parents or _kind(slug) in ways or len(ways) >= variants:
                continue
            parents.add((name, parent))
            found.append(Icon(style, slug, name))
            ways.add(_kind(slug))
    return found


def read_sets(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of collections.json of all sets that may be used."""
    rows = json.loads((folder / "collections.json").read_text(encoding="utf-8"))
    return {style: row for style, row in rows.items() if usable(style, row)}


def read_icons(folder: Path, style: str) -> dict[str, Any]:
    """An iconify set."""
    return json.loads((folder / "json" / f"{style}.json").read_text(encoding="utf-8"))


def svg(icons: dict[str, Any], slug: str, side: int) -> tuple[str, int, int]:
    """The text of an icon, and the pixels to draw it with, the longer side ``side``; one-coloured ones are black."""
    names = [slug]
    while names[-1] not in icons["icons"]:
        names.append(icons["aliases"][names[-1]]["parent"])
    icon = icons["icons"][names[-1]]
    left, top = (icon.get(key, icons.get(key, 0)) for key in ("left", "top"))
    width, height = (float(icon.get(key, icons.get(key, 16))) for key in ("width", "height"))
    scale = side / max(width, height)
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )
    return text, max(1, round(width * scale)), max(1, round(height * scale))
