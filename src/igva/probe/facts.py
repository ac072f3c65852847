"""What everybody knows of the things that are drawn; disputable cases are left out."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _listed(**groups: str) -> dict[str, tuple[str, ...]]:
    return {name: _words(things) for name, things in groups.items()}


# Things that belong to one kind of place and to no other of the list.
PLACES = _listed(
    kitchen="knife spoon teapot jar egg cheese bread milk garlic onion",
    farm="cow pig sheep rooster tractor horse goat chick turkey",
    sea="shark whale octopus dolphin crab jellyfish lobster squid sailboat anchor",
    street="bus car ambulance firetruck motorcycle truck mailbox bicycle",
    office="laptop keyboard pencil pen paperclip clipboard briefcase calendar computer ruler",
    stage="violin trumpet drum guitar piano saxophone accordion banjo microphone flute",
    safari="lion elephant giraffe zebra rhino hippo leopard gorilla",
    workshop="hammer saw wrench screwdriver toolbox ladder gear axe",
)

KINDS = _listed(
    animal="ant bear beaver bee camel cat cow crab deer dog dolphin duck elephant fox frog giraffe goat horse kangaroo "
    "koala lion lizard monkey octopus owl panda parrot penguin pig rabbit rhino shark sheep snail snake spider squid "
    "swan tiger turtle whale wolf zebra",
    food="bacon bagel baguette bread burger burrito cake candy cheese cookie croissant cupcake donut egg hotdog "
    "pancake pie pizza popcorn pretzel sandwich spaghetti steak sushi taco waffle",
    vehicle="airplane ambulance bicycle boat bus canoe car firetruck helicopter motorcycle sailboat scooter tractor "
    "train truck",
    instrument="accordion banjo drum flute guitar piano saxophone trumpet violin",
    clothing="boot cap coat dress glove hat heel necktie scarf shirt shoe",
    plant="cactus clover palm pine rose sunflower tree tulip",
    building="castle church factory house",
    tool="axe hammer saw screwdriver wrench",
)

USES = _listed(
    cutting="knife saw axe",
    writing="pen pencil crayon",
    music="accordion banjo drum flute guitar piano saxophone trumpet violin",
    time="clock watch hourglass",
    travel="airplane bicycle boat bus car helicopter motorcycle train truck scooter",
    cleaning="broom soap sponge toothbrush",
    light="candle flashlight lantern lightbulb",
    clothing="boot cap coat dress glove hat scarf shirt shoe",
    rest="bed chair couch",
)

LEGS = {
    "0": _words("dolphin fish shark snail snake whale"),
    "2": _words("bird chick dove duck eagle flamingo goose owl parrot peacock penguin rooster swan"),
    "4": _words(
        "bear beaver camel cat cow crocodile deer dog donkey elephant fox frog giraffe goat hamster hedgehog hippo "
        "horse koala leopard lion lizard mammoth moose mouse panda pig rabbit raccoon rhino sheep skunk tiger turtle "
        "wolf zebra"
    ),
    "6": _words("ant bee beetle butterfly fly ladybug"),
    "8": _words("scorpion spider"),
}

HABITATS = _listed(
    sea="crab dolphin jellyfish lobster octopus shark squid whale",
    farm="cow goat pig rooster sheep turkey chick",
    grassland="elephant giraffe hippo lion rhino zebra",
    forest="bear beaver deer fox hedgehog moose raccoon skunk wolf",
)

# Flags made of stripes, a disc or crosses: kind, then colours. Proportions are simplified to 3:2.
_W, _R, _B, _G, _Y, _K, _O = "white", "red", "blue", "green", "yellow", "black", "orange"
FLAGS: dict[str, tuple[str, ...]] = {
    "austria": ("rows", _R, _W, _R),
    "bangladesh": ("disc", _G, _R),
    "belgium": ("columns", _K, _Y, _R),
    "bulgaria": ("rows", _W, _G, _R),
    "denmark": ("nordic", _R, _W),
    "estonia": ("rows", _B, _K, _W),
    "finland": ("nordic", _W, _B),
    "france": ("columns", _B, _W, _R),
    "gabon": ("rows", _G, _Y, _B),
    "germany": ("rows", _K, _R, _Y),
    "hungary": ("rows", _R, _W, _G),
    "indonesia": ("rows", _R, _W),
    "ireland": ("columns", _G, _W, _O),
    "italy": ("columns", _G, _W, _R),
    "ivory coast": ("columns", _O, _W, _G),
    "japan": ("disc", _W, _R),
    "lithuania": ("rows", _Y, _G, _R),
    "mauritius": ("rows", _R, _B, _Y, _G),
    "netherlands": ("rows", _R, _W, _B),
    "nigeria": ("columns", _G, _W, _G),
    "norway": ("nordic", _R, _W, _B),
    "peru": ("columns", _R, _W, _R),
    "poland": ("rows", _W, _R),
    "romania": ("columns", _B, _Y, _R),
    "russia": ("rows", _W, _B, _R),
    "sierra leone": ("rows", _G, _W, _B),
    "sweden": ("nordic", _B, _Y),
    "switzerland": ("cross", _R, _W),
    "thailand": ("rows", _R, _W, _B, _B, _W, _R),
    "ukraine": ("rows", _B, _Y),
    "yemen": ("rows", _R, _W, _K),
}

# Often drawn in the pictures of the suite: what a guesser would say is there.
POPULAR = _words(
    "apple banana bird bus car cat chair clock cow dog egg fish guitar hat horse house key pizza rose shoe sun tree "
    "umbrella"
)

KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
# For each of them, the others of its kind.
ALIKE = {name: tuple(other for other in group if other != name) for group in KINDS.values() for name in group}
# Kinds of which a thing of the first could be said too: whether it is one is never asked.
DISPUTED = {
    "animal": ("food",),
    "food": ("animal", "plant"),
    "plant": ("food",),
    "instrument": ("tool",),
    "clothing": ("tool",),
    "vehicle": ("tool",),
    "tool": ("instrument", "clothing", "vehicle"),
    "building": (),
}
