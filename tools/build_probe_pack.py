"""Build ``src/igva/probe/pack``: pictograms of everyday things in several drawing styles, and fonts.

Not needed to use or train anything: the pack is committed. Run it only to change the pack. It takes
the packed npm and Debian files from one folder and needs, next to the standard library, Pillow and
``resvg-py`` (a wheel that rasterises SVG without system libraries)::

    mkdir -p /tmp/packages && cd /tmp/packages
    npm pack @iconify-json/noto@1.2.9 @iconify-json/fluent-emoji@1.2.7 @iconify-json/twemoji@1.2.5 \\
        @iconify-json/noto-v1@1.2.5 @iconify-json/emojione@1.2.3 @iconify-json/fxemoji@1.2.2
    apt-get download openclipart-png fonts-go fonts-crosextra-caladea fonts-anonymous-pro fonts-breip \\
        fonts-quicksand fonts-averia-serif-gwf fonts-play fonts-liberation2 fonts-comfortaa
    pip install resvg-py==0.5.0
    python tools/build_probe_pack.py /tmp/packages src/igva/probe/pack
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import resvg_py
from PIL import Image

SIZE = 128  # pixels of the longer side of the icon's own canvas
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
OPENCLIPART = Path(__file__).parent / "openclipart.txt"
QUALITY = 90  # of the WebP files of these; those of ``STYLES`` are lossless

# name=slug+slug where the icon's slug differs from the name (dashes for spaces) or has variants.
# "~" before a name: a mass noun ("bread") or a drawing that shows several ("cherry"): never counted.
# "0" after it: no article ("Is there bread ...").
NAMES = {
    "animal": """
        ant bear beaver bee=honeybee beetle bird butterfly camel=camel+two-hump-camel
        cat=cat+cat-face caterpillar=bug chick=baby-chick+front-facing-baby-chick cow=cow+cow-face
        crab crocodile deer dinosaur=sauropod+t-rex dog=dog+dog-face dolphin donkey dove
        dragon=dragon+dragon-face duck eagle elephant fish=fish+tropical-fish flamingo fly fox frog
        giraffe goat goose gorilla hamster hedgehog hippo=hippopotamus horse=horse+horse-face
        jellyfish kangaroo koala ladybug=lady-beetle leopard lion lizard lobster mammoth
        monkey=monkey+monkey-face moose mouse=mouse+mouse-face octopus owl panda parrot peacock
        penguin pig=pig+pig-face rabbit=rabbit+rabbit-face raccoon rhino=rhinoceros rooster scorpion
        shark sheep=ewe+ram shell=spiral-shell shrimp skunk sloth snail snake spider squid swan
        tiger=tiger+tiger-face turkey turtle unicorn whale=whale+spouting-whale wolf zebra
    """,
    "plant": """
        bouquet cactus clover=four-leaf-clover+shamrock ~coral0=coral ~leaf=leaf-fluttering-in-wind
        mushroom palm=palm-tree pine=evergreen-tree rose seedling sunflower tree=deciduous-tree
        tulip
    """,
    "food": """
        apple=red-apple+green-apple avocado ~bacon0=bacon bagel baguette=baguette-bread banana
        ~bread0=bread ~broccoli0=broccoli burger=hamburger burrito cake=birthday-cake
        ~can=canned-food candy carrot ~cheese0=cheese-wedge ~cherry=cherries coconut cookie
        ~corn0=ear-of-corn croissant cucumber cupcake donut=doughnut ~egg=egg eggplant
        ~garlic0=garlic ~grape=grapes hotdog=hot-dog kiwi=kiwi-fruit lemon lollipop mango
        ~milk0=glass-of-milk onion pancake=pancakes peach ~peanut=peanuts pear pepper=bell-pepper
        pie pineapple pizza ~popcorn0=popcorn potato pretzel sandwich ~spaghetti0=spaghetti
        steak=cut-of-meat strawberry ~sushi0=sushi taco tomato waffle watermelon
    """,
    "kitchen": """
        cocktail=cocktail-glass coffee0=hot-beverage jar knife=kitchen-knife spoon teapot
        wineglass=wine-glass
    """,
    "vehicle": """
        airplane=airplane+small-airplane ambulance bicycle boat=motor-boat bus canoe
        car=automobile+oncoming-automobile firetruck=fire-engine helicopter motorcycle parachute
        rocket sailboat scooter=motor-scooter skateboard sled tractor train=train+metro
        truck=articulated-lorry ufo=flying-saucer wheelchair=manual-wheelchair
    """,
    "building": """
        carousel=carousel-horse castle church factory fountain house=house+house-with-garden tent
    """,
    "clothing": """
        backpack boot=hiking-boot+womans-boot cap=billed-cap coat crown dress ~glove=gloves handbag
        hat=top-hat heel=high-heeled-shoe helmet=rescue-workers-helmet necktie ring scarf
        shirt=t-shirt shoe=running-shoe
    """,
    "instrument": """
        accordion banjo drum flute guitar microphone=studio-microphone piano=musical-keyboard
        saxophone trumpet violin
    """,
    "tool": """
        axe bow=bow-and-arrow broom brush=paintbrush bucket compass crayon flashlight hammer ladder
        magnet microscope pen pencil ruler=straight-ruler saw=carpentry-saw screwdriver shield
        stethoscope telescope toolbox toothbrush wrench
    """,
    "furniture": """
        bathtub bed chair couch=couch-and-lamp door mirror toilet window
    """,
    "sport": """
        baseball basketball boomerang die=game-die football=american-football kite
        ball=soccer-ball target=bullseye trophy volleyball yo-yo=yo-yo
    """,
    "thing": """
        abacus anchor balloon basket bell book=closed-book+blue-book+green-book+orange-book
        box=package brick briefcase calendar=tear-off-calendar+calendar camera candle clipboard
        clock=alarm-clock+mantelpiece-clock coin computer=desktop-computer envelope
        fan=folding-hand-fan feather gear gem=gem-stone gift=wrapped-gift
        globe=globe-showing-americas+globe-showing-europe-africa hourglass=hourglass-done joystick
        key=key+old-key keyboard lantern=red-paper-lantern laptop lightbulb=light-bulb lipstick
        lock=locked mailbox=closed-mailbox-with-raised-flag megaphone newspaper
        palette=artist-palette paperclip phone=mobile-phone radio scroll snowman ~soap0=soap sponge
        suitcase=luggage teddy=teddy-bear television ticket
        umbrella=umbrella+umbrella-with-rain-drops watch wheel ~yarn0=yarn
    """,
    "nature": """
        cloud ~fire0=fire moon=crescent-moon mountain=mountain+snow-capped-mountain
        planet=ringed-planet rainbow rock snowflake sun tornado volcano
    """,
}

# Names one of which could be said of a drawing of another: never together in one picture, and never
# asked about when another of the group is there (a dove is a bird; a mouse may pass for a hamster).
KIN = """
bird chick dove duck eagle flamingo goose owl parrot peacock penguin rooster swan turkey
mouse hamster hedgehog rabbit
dog fox wolf
cat leopard lion tiger
cow goat sheep deer moose
horse donkey zebra unicorn carousel
bear koala panda sloth
monkey gorilla
elephant mammoth
lizard crocodile dinosaur dragon
fish dolphin shark whale
shrimp lobster crab scorpion
octopus squid jellyfish
ant bee beetle fly ladybug spider butterfly
snail shell
snake caterpillar
beaver raccoon skunk
tree pine palm
bouquet rose sunflower tulip
leaf seedling clover
bread baguette croissant bagel donut
cake cupcake pie pancake waffle
burger sandwich hotdog
taco burrito
apple cherry peach tomato mango
lemon pear kiwi
candy lollipop
potato peanut coconut egg
cocktail wineglass milk coffee
car ambulance firetruck truck bus tractor train
bicycle motorcycle scooter
boat canoe sailboat
airplane rocket helicopter
house castle church factory hut
cap hat helmet crown
coat shirt dress
shoe boot heel
backpack handbag suitcase briefcase
basket bucket
guitar banjo violin
saxophone trumpet flute
pen pencil crayon brush
axe hammer
knife saw spoon
ball baseball basketball volleyball football
mountain volcano
sun moon planet globe
compass clock watch
computer laptop television radio keyboard piano
book newspaper scroll calendar clipboard envelope ticket
box gift toolbox
door window mirror
chair couch bed
bathtub toilet
key lock
gear wheel target
necktie scarf
rock brick
lantern lightbulb candle flashlight fire
umbrella parachute
balloon globe
cloud tornado
camera phone
bow boomerang
mailbox envelope
megaphone microphone bell
coin trophy
gem ring
"""

PLURALS = {
    **{name: name for name in ("deer", "fish", "jellyfish", "moose", "sheep", "shrimp", "squid")},
    "die": "dice",
    "goose": "geese",
    "knife": "knives",
    "leaf": "leaves",
    "mouse": "mice",
    "scarf": "scarves",
    "snowman": "snowmen",
    "ufo": "ufos",
    "wolf": "wolves",
}

# file in the pack -> (Debian package, path inside it); "test-" fonts never appear in train or val.
_DIRS = "usr/share/fonts"
FONTS = {
    "train-go.ttf": ("fonts-go", f"{_DIRS}/fonts-go/Go-Regular.ttf"),
    "train-caladea.ttf": ("fonts-crosextra-caladea", f"{_DIRS}/truetype/crosextra/Caladea-Regular.ttf"),
    "train-anonymous.ttf": ("fonts-anonymous-pro", f"{_DIRS}/truetype/anonymous-pro/Anonymous Pro.ttf"),
    "train-breip.ttf": ("fonts-breip", f"{_DIRS}/truetype/breip/Breip.ttf"),
    "train-quicksand.ttf": ("fonts-quicksand", f"{_DIRS}/truetype/quicksand/Quicksand-Bold.ttf"),
    "train-averia.ttf": ("fonts-averia-serif-gwf", f"{_DIRS}/truetype/averia-gwf/AveriaSerifGWF-Bold.ttf"),
    "test-play.ttf": ("fonts-play", f"{_DIRS}/truetype/play/Play-Bold.ttf"),
    "test-liberation-serif.ttf": (
        "fonts-liberation2",
        f"{_DIRS}/truetype/liberation2/LiberationSerif-Regular.ttf",
    ),
    "test-comfortaa.ttf": ("fonts-comfortaa", f"{_DIRS}/truetype/comfortaa/Comfortaa-Bold.ttf"),
}


def plural(name: str) -> str:
    """The English plural of a one-word noun."""
    if name in PLURALS:
        return PLURALS[name]
    if name.endswith(("s", "x", "ch", "sh")) or name in ("mango", "potato", "tomato", "tornado", "volcano"):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def parse_names() -> dict[str, dict[str, object]]:
    """``NAMES`` as name -> category, plural, article, countable, slugs."""
    kin: dict[str, set[str]] = {}
    for line in KIN.split("\n"):
        for name in line.split():
            kin.setdefault(name, set()).update(set(line.split()) - {name})
    names: dict[str, dict[str, object]] = {}
    for category, text in NAMES.items():
        for word in text.split():
            marked, _, slugs = word.partition("=")
            name = marked.strip("~0")
            assert name not in names, name
            article = "" if marked.endswith("0") else "an" if name[0] in "aeio" or name == "umbrella" else "a"
            names[name] = {
                "plural": plural(name),
                "category": category,
                "article": article,
                "countable": "~" not in marked and "0" not in marked,
                "kin": sorted(kin.get(name, ())),
                "slugs": (slugs or name).split("+"),
            }
    known = set(names)
    for entry in names.values():
        entry["kin"] = [other for other in entry["kin"] if other in known]  # type: ignore[attr-defined]
    return dict(sorted(names.items()))


def rasterise(icons: dict[str, object], slug: str) -> Image.Image | None:
    """One icon of an iconify set, SIZE x SIZE pixels with alpha; None if the set lacks it."""
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
    image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))))
    return image.convert("RGBA")


def slug_in(style: str, slug: str) -> str:
    """What a set calls an icon."""
    if style != "fxemoji":
        return slug
    return dict(word.split("=") for word in FXEMOJI.split()).get(slug, slug.replace("-", ""))


def encode(image: Image.Image, **options: object) -> bytes:
    """A picture as WebP."""
    out = io.BytesIO()
    image.save(out, "WEBP", method=6, **options)
    return out.getvalue()


def read_icons(packages: Path, package: str) -> dict[str, object]:
    """An iconify set."""
    with tarfile.open(next(packages.glob(f"iconify-json-{package}-[0-9]*.tgz"))) as tar:
        return json.loads(tar.extractfile("package/icons.json").read())  # type: ignore[union-attr, no-any-return]


def read_openclipart(packages: Path) -> dict[str, list[Image.Image]]:
    """The drawings chosen for each name, their longer side SIZE pixels."""
    found: dict[str, list[Image.Image]] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg", "-x", str(next(packages.glob("openclipart-png_*.deb"))), folder], check=True)
        for line in OPENCLIPART.read_text().splitlines():
            if not line.startswith("#"):
                name, path = line.split(" ", 1)
                image = Image.open(Path(folder, "usr/share/openclipart/png", path)).convert("RGBA")
                image = image.crop(image.getchannel("A").getbbox())
                image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
                found.setdefault(name, []).append(image)
    return found


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """A stored (WebP is compressed already) archive with fixed dates, so that a rebuild is byte-identical."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


def copy_fonts(packages: Path, fonts: Path) -> None:
    """Unmodified font files, each package's copyright file beside them."""
    fonts.mkdir(parents=True)
    for target, (package, inside) in FONTS.items():
        deb = next(packages.glob(f"{package}_*.deb"))
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["dpkg", "-x", str(deb), folder], check=True)
            shutil.copyfile(Path(folder, inside), fonts / target)
            shutil.copyfile(Path(folder, "usr/share/doc", package, "copyright"), fonts / f"{package}.copyright.txt")


def main(packages: Path, pack: Path) -> None:
    """Write names.json, one zip per style and fonts/ into ``pack``."""
    pack.mkdir(parents=True, exist_ok=True)
    names = parse_names()
    for entry in names.values():
        entry["files"] = {}
    for style, package in (STYLES | MORE_STYLES).items():
        icons = read_icons(packages, package)
        options = {"lossless": True, "quality": 100} if style in STYLES else {"quality": QUALITY}
        files: dict[str, bytes] = {}
        for name, entry in names.items():
            for slug in entry["slugs"] if name not in NOT_IT.get(style, "").split() else ():  # type: ignore[attr-defined]
                image = rasterise(icons, slug_in(style, slug))
                if image is None:
                    assert style in MORE_STYLES, (style, name)
                    continue
                files[f"{slug}.webp"] = encode(image, **options)
                entry["files"].setdefault(style, []).append(f"{slug}.webp")  # type: ignore[attr-defined]
        write_zip(pack / f"{style}.zip", files)
    files = {}
    for name, images in read_openclipart(packages).items():
        for number, image in enumerate(images):
            files[f"{name}-{number}.webp"] = encode(image, quality=QUALITY)
        made = [f"{name}-{number}.webp" for number in range(len(images))]
        names[name]["files"]["openclipart"] = made  # type: ignore[index]
    write_zip(pack / "openclipart.zip", files)
    for entry in names.values():
        del entry["slugs"]
    (pack / "names.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(pack / "fonts", ignore_errors=True)
    copy_fonts(packages, pack / "fonts")
    print(f"{len(names)} names")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
