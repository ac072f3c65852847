"""The names of the pack: what each is called, its kind, and which others could be said of its drawing."""

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
    **{name: name for name in ("bison", "reindeer", "binoculars", "pliers", "scissors")},
}

# Names that only photographs have, written like ``NAMES``; never in names.json, whose order feeds the random choices
# of every split.
PHOTO_NAMES = {
    "animal": """
        antelope badger bison bull capybara chicken chimpanzee crane ferret grasshopper heron mantis marmot moth orca
        ostrich otter pelican rat reindeer seahorse seal slug squirrel toucan vulture wasp wombat yak
    """,
    "plant": "daffodil flower iris pinecone",
    "food": """
        almond apricot chili ~ginger0 ~lettuce0 orange pecan pomegranate pumpkin raspberry squash walnut yam
    """,
    "kitchen": "glass kettle mug nutcracker pitcher",
    "vehicle": "tank tricycle",
    "instrument": "bassoon cello cymbal",
    "tool": "~binoculars0 ~pliers0 ~scissors0 shovel syringe thermometer",
    "sport": "racket",
    "thing": "astronaut bandage bin clothespin doll firefighter gravestone wreath",
}
# Like ``KIN``, where one of a line is a name of ``PHOTO_NAMES``.
PHOTO_KIN = """
chicken crane heron ostrich pelican toucan vulture bird dove duck eagle flamingo goose owl parrot peacock swan
chicken chick rooster turkey penguin ostrich
antelope bison bull yak reindeer cow goat sheep deer moose horse donkey
chimpanzee monkey gorilla
badger capybara ferret marmot otter rat seal squirrel wombat beaver raccoon skunk mouse hamster
squirrel wombat capybara marmot rat badger hedgehog rabbit koala bear mouse hamster
grasshopper mantis moth wasp ant bee beetle fly ladybug spider butterfly
orca dolphin whale shark fish seahorse
slug snail caterpillar shell
daffodil flower iris rose tulip sunflower bouquet
pinecone pine
almond pecan walnut peanut coconut
apricot orange peach apple mango tomato pumpkin lemon
pomegranate apple onion
raspberry strawberry
chili pepper carrot
ginger yam potato
lettuce broccoli leaf
squash pumpkin eggplant
glass mug pitcher kettle teapot milk coffee jar cocktail wineglass
tank truck tractor car
tricycle bicycle scooter motorcycle
bassoon flute
cello violin guitar banjo
cymbal drum
pliers scissors wrench nutcracker knife
shovel spoon broom
syringe thermometer pen pencil
binoculars telescope camera
astronaut firefighter doll teddy
bin bucket basket mailbox
gravestone rock
wreath pine
"""


def plural(name: str) -> str:
    """The English plural of a one-word noun."""
    if name in PLURALS:
        return PLURALS[name]
    if name.endswith(("s", "x", "ch", "sh")) or name in ("mango", "potato", "tomato", "tornado", "volcano"):
        return name + "es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + "s"


def _kin(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in text.split("\n"):
        for name in line.split():
            found.setdefault(name, set()).update(set(line.split()) - {name})
    return found


def _parse(table: dict[str, str], kin: dict[str, set[str]], known: set[str]) -> dict[str, dict[str, object]]:
    names: dict[str, dict[str, object]] = {}
    for category, text in table.items():
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
    known = known | set(names)
    for entry in names.values():
        entry["kin"] = [other for other in entry["kin"] if other in known]  # type: ignore[attr-defined]
    return dict(sorted(names.items()))


def parse_names() -> dict[str, dict[str, object]]:
    """``NAMES`` as name -> category, plural, article, countable, kin, slugs."""
    return _parse(NAMES, _kin(KIN), set())


def parse_photo_names() -> dict[str, dict[str, object]]:
    """``PHOTO_NAMES`` in the same form, without slugs; kin may be of either table."""
    names = _parse(PHOTO_NAMES, _kin(PHOTO_KIN), set(parse_names()))
    for entry in names.values():
        del entry["slugs"]
    return names
