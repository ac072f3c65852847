"""Icon sets of npm (iconify's JSON): emoji, drawn icons and silhouettes."""

import json
import tarfile
from pathlib import Path

from PIL import Image

from probe_pack.files import MORE_QUALITY, QUALITY, SIZE, encode, numbered, rasterise, read_table

STYLES = {"noto": "noto", "fluent": "fluent-emoji", "twemoji": "twemoji"}  # ours -> npm package
# Sets that lack some of the names; for training alone, as are the drawings of openclipart.txt.
MORE_STYLES = {"noto-v1": "noto-v1", "emojione": "emojione", "fxemoji": "fxemoji"}
# Drawings left out: of another thing, of two where one is meant, with something else, or in a frame with a sky.
NOT_IT = {
    "noto-v1": "baguette basketball boot laptop",
    "emojione": "basketball motorcycle mountain necktie tent",
    "fxemoji": """
        banana bird carousel computer die fountain keyboard rainbow sailboat tent ticket toilet volcano window
    """,
}
# FxEmojis writes slugs without dashes, and these in other words. Its drawings are CC-BY-4.0; the Apache-2.0 that the
# npm package states is the licence of its code.
FXEMOJI = """
    backpack=schoolsatchel bullseye=directhit camel=dromedarycamel castle=europeancastle cat-face=cat cat=catside
    closed-mailbox-with-raised-flag=closedmailboxraised crayon=lowerleftcrayon dog-face=dog dog=dogside
    dove=doveofpeace dragon-face=dragonhead dragon=dragonside ear-of-corn=earofmaize eggplant=aubergine
    evergreen-tree=evergreen ewe=sheep flashlight=electrictorch gem-stone=gem globe-showing-americas=americasglobe
    globe-showing-europe-africa=europeafricaglobe hamster=hampster high-heeled-shoe=heels hourglass-done=hourglass
    leaf-fluttering-in-wind=leaffluttering leopard=leopardside locked=lock mantelpiece-clock=manltepiececlock
    mobile-phone=cellphone motor-boat=speedboat mouse-face=mouse mouse=mouseside paintbrush=lowerleftpaintbrush
    panda=pandaface pen=lowerleftpen pencil=lowerleftpencil pig-face=pig pig=pigside pizza=sliceofpizza
    rabbit-face=bunny rabbit=bunnyside red-paper-lantern=izakayalantern running-shoe=mensshoe
    snow-capped-mountain=snowmountains snowman=snowmanwithoutsnow spouting-whale=spurtingwhale
    studio-microphone=studiomic sun=whitesun t-shirt=mansshirt tiger-face=tiger tiger=tigerside
    two-hump-camel=bactriancamel wolf=wolfface womans-boot=boot wrapped-gift=present
"""
# Sets of other kinds than emoji: what was chosen of each by eye stands in icons/PACKAGE.tsv (name, slugs).
ICONS = Path(__file__).parent / "icons"


def draw_icon(icons: dict[str, object], slug: str) -> Image.Image | None:
    """One icon of an iconify set, SIZE x SIZE pixels with alpha, one-coloured sets in black; None if it is lacking."""
    icon = icons["icons"].get(slug)  # type: ignore[attr-defined]
    if icon is None:
        if slug not in icons.get("aliases", {}):  # type: ignore[attr-defined]
            return None
        icon = icons["icons"][icons["aliases"][slug]["parent"]]  # type: ignore[index]
    width = icon.get("width", icons["width"])
    height = icon.get("height", icons["height"])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
    return rasterise(svg, SIZE, SIZE)


def slug_in(style: str, slug: str) -> str:
    """What a set calls an icon."""
    if style != "fxemoji":
        return slug
    return dict(word.split("=") for word in FXEMOJI.split()).get(slug, slug.replace("-", ""))


def read_icons(packages: Path, package: str) -> dict[str, object]:
    """An iconify set."""
    with tarfile.open(next(packages.glob(f"iconify-json-{package}-[0-9]*.tgz"))) as tar:
        return json.loads(tar.extractfile("package/icons.json").read())  # type: ignore[union-attr, no-any-return]


def emoji(
    packages: Path, style: str, names: dict[str, dict[str, object]]
) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """The archive of an emoji set, and the files of each name that it has."""
    icons = read_icons(packages, (STYLES | MORE_STYLES)[style])
    options: dict[str, object] = {"lossless": True, "quality": 100} if style in STYLES else {"quality": QUALITY}
    files: dict[str, bytes] = {}
    listed: dict[str, list[str]] = {}
    for name, entry in names.items():
        for slug in entry["slugs"] if name not in NOT_IT.get(style, "").split() else ():  # type: ignore[attr-defined]
            image = draw_icon(icons, slug_in(style, slug))
            if image is None:
                assert style in MORE_STYLES, (style, name)
                continue
            files[f"{slug}.webp"] = encode(image, **options)
            listed.setdefault(name, []).append(f"{slug}.webp")
    return files, listed


def icon_set(packages: Path, package: str) -> dict[str, bytes]:
    """The archive of a set of ``ICONS``: the icons chosen for each name."""
    icons = read_icons(packages, package)
    chosen: dict[str, list[bytes]] = {}
    for name, slugs in read_table(ICONS / f"{package}.tsv"):
        for slug in slugs.split():
            image = draw_icon(icons, slug)
            assert image is not None, (package, slug)
            chosen.setdefault(name, []).append(encode(image, quality=MORE_QUALITY))
    return numbered(chosen)
