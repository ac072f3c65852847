"""Which icons show which thing: the names of the bank, and what icon sets call them."""

from functools import cache

from probe_pack.nouns import parse_names, parse_photo_names

# Sets of emoji, which call things by Unicode's names.
EMOJI = frozenset(
    [
        "openmoji",
        "noto",
        "noto-v1",
        "fluent-emoji",
        "fluent-emoji-flat",
        "fluent-emoji-high-contrast",
        "emojione",
        "emojione-v1",
        "emojione-monotone",
        "fxemoji",
        "symbola",
    ]
)
# Further slugs of the pack's names, outside emoji (there nouns.py knows them).
CORE_SLUGS = """
    airplane=plane+aeroplane+flight axe=hatchet backpack=rucksack bagel=bagel-with-seeds+bagel-seeded
    ball=soccer+football-ball+beach-ball baseball=baseball-ball basketball=basketball-ball+ball-basketball
    bathtub=bathtub+bath-tub beaver=beaver-in-water bed=single-bed+double-bed
    bicycle=bicycle+bike+bike-bicycle+mountain-bike boat=boat+motorboat+speedboat
    book=book+open-book+book-open+book-closed boot=boots+rain-boot+boot+rain-boots bow=bow-and-arrow+bow-arrow
    box=cardboard-box+package+parcel bread=bread-slice+bread-loaf brick=bricks briefcase=briefcase+suitcase-work
    brush=paintbrush+paint-brush bucket=bucket+pail burger=burger+hamburger+cheeseburger bus=bus+bus-front
    cake=cake+birthday-cake+cake-birthday candle=candles candy=sweet+sweets cap=baseball-cap
    car=car+car-side+sports-car+sedan+sport-car+electric-car+car-front carrot=carrots
    chair=chair+office-chair+armchair+chair-office cherry=cherries clock=clock+alarm-clock+wall-clock+alarm
    cloud=clouds clover=clover+shamrock+four-leaf-clover cocktail=martini
    coffee=coffee+coffee-cup+cup-hot+coffee-mug+mug-hot coin=coin+coins
    computer=computer+pc+desktop-computer+device-desktop+personal-computer cookie=cookie+cookies
    corn=corn+maize+ear-of-corn couch=couch+sofa+loveseat crocodile=crocodile+alligator
    die=dice+die+dice-five+dice-three+game-dice dinosaur=dino donut=donut+doughnut door=door+door-open+door-closed
    drum=drum+drums egg=egg+eggs envelope=envelope+mail+envelope-open feather=feather+quill fire=fire+flame
    flashlight=flashlight+torch-light football=american-football+ball-american-football
    gear=gear+cog+cogwheel+gears gem=gem+gem-stone+gemstone+diamond-stone gift=gift+present+gift-box
    globe=globe+earth+earth-globe+earth-americas+earth-africa+globe-stand+globe-earth glove=glove+gloves+mitten
    grape=grapes+grape guitar=guitar+acoustic-guitar+electric-guitar hat=hat+top-hat
    heel=high-heel+high-heels+high-heeled-shoe helmet=helmet+hard-hat+safety-helmet+construction-helmet
    hotdog=hotdog+hot-dog hourglass=hourglass+sand-clock+sandglass jar=jar+mason-jar kiwi=kiwi-fruit
    knife=knife+kitchen-knife+chef-knife ladybug=ladybug+ladybird
    laptop=laptop+laptop-computer+notebook-computer+computer-laptop leaf=leaf+maple-leaf
    lightbulb=lightbulb+light-bulb+bulb lizard=lizard+gecko lock=lock+padlock+lock-closed
    megaphone=megaphone+bullhorn microphone=microphone+mic milk=milk+milk-bottle+milk-carton
    mirror=hand-mirror+rounded-mirror+mirror-rectangular+mirror-round motorcycle=motorcycle+motorbike
    mountain=mountain+mountains+snow-mountain necktie=necktie+tie newspaper=newspaper+news-paper
    palette=palette+color-palette+paint-palette palm=palm-tree+tree-palm+coconut-palm-tree
    paperclip=paperclip+paper-clip peanut=peanut+peanuts pen=pen+fountain-pen+ballpoint-pen+pen-nib
    phone=phone+smartphone+mobile-phone+telephone+cellphone+cell-phone+device-mobile
    piano=piano+grand-piano+piano-keys pine=pine-tree+tree-pine+evergreen+tree-evergreen pizza=pizza+pizza-slice
    planet=planet+saturn+planet-ringed+ringed-planet radio=radio+boombox
    rock=pointy-rock+squat-rock+trapezoidal-rock rocket=rocket+space-rocket sailboat=sailboat+sailing-boat+sailing
    saw=saw+hand-saw+handsaw scooter=scooter+kick-scooter+moped+motor-scooter+electric-scooter
    seedling=seedling+sprout+sapling shirt=shirt+t-shirt+tshirt+tee-shirt
    shoe=shoe+sneaker+running-shoe+shoes+sneakers skateboard=skateboard+skateboarding sled=dog-sled
    snowflake=snowflake+snow-flake soap=soap-bar spaghetti=spaghetti+pasta+noodles suitcase=suitcase+luggage
    sun=sun+sunny target=target+bullseye+dartboard+target-arrow+bullseye-arrow teapot=teapot+tea-pot
    teddy=teddy-bear television=tv+television+device-tv+tv-old tent=tent+camping-tent ticket=ticket+tickets
    toilet=toilet+toilet-bowl tornado=tornado+hurricane-tornado train=train+subway+tram+locomotive
    tree=tree+deciduous-tree trophy=trophy+trophy-cup truck=truck+lorry+delivery-truck turtle=turtle+tortoise
    ufo=ufo+flying-saucer volleyball=volleyball+volleyball-ball watch=watch+smartwatch+wrist-watch+wristwatch
    wheel=wheel+tire+car-wheel wheelchair=wheelchair+manual-wheelchair window=window-closed+sensor-window
    wineglass=wine-glass+wineglass+glass-wine wrench=wrench+spanner yarn=yarn-ball yo-yo=yoyo
"""
# Names whose bare word means something else in the sets of user interfaces: taken from emoji, and from these sets.
GUARDED = {
    "apple": "tabler lucide icon-park icon-park-outline icon-park-solid icon-park-twotone healthicons",
    **dict.fromkeys(
        [
            "accordion",
            "bow",
            "bull",
            "cap",
            "carousel",
            "caterpillar",
            "coat",
            "crane",
            "dove",
            "drum",
            "fan",
            "fly",
            "fountain",
            "iris",
            "jellyfish",
            "kiwi",
            "mango",
            "mirror",
            "moth",
            "mouse",
            "orange",
            "orca",
            "palm",
            "pear",
            "pie",
            "pine",
            "pitcher",
            "ring",
            "rock",
            "scroll",
            "seahorse",
            "seal",
            "shell",
            "squash",
            "squid",
            "turkey",
            "window",
            "yarn",
        ],
        "",
    ),
    "turkey": "game-icons",
    "pear": "icon-park icon-park-outline icon-park-solid icon-park-twotone healthicons",
    "ring": "tabler ph",
    "jellyfish": "ph tabler",
    "drum": "lucide tabler",
}
# Slugs that only emoji may use: in other sets they are signs, parts of computers or other things.
EMOJI_SLUGS = frozenset(["bug", "ram", "metro", "window", "shell", "scroll", "seal", "crane", "pick", "wave"])
# Slugs of the names of the pack that only photographs have.
PHOTO_SLUGS = """
    astronaut=astronaut+cosmonaut bandage=bandage+adhesive-bandage+band-aid
    bin=wastebasket+trash-can+trash+bin+trash-bin+garbage-can+dustbin chili=hot-pepper+chili+chili-pepper
    doll=doll+nesting-dolls firefighter=firefighter+fireman flower=flower+blossom+hibiscus+flower-tulip
    glass=glass+glass-of-milk+glass-cup gravestone=gravestone+tombstone+headstone lettuce=lettuce+leafy-green
    mug=mug+beer-mug+coffee-mug orange=orange+tangerine pitcher=pitcher+jug+water-pitcher
    pumpkin=pumpkin+jack-o-lantern racket=tennis-racket+tennis-racquet+racket+badminton-racket
    squirrel=squirrel+chipmunk tank=tank+military-tank yam=roasted-sweet-potato+sweet-potato
"""
# Further names (a space as _), chosen by eye among the icons' names that WordNet 3.0 knows as things, with slugs.
FURTHER = """
    acorn air_conditioner=air-conditioner+air-conditioning alembic alien=alien amphora antenna anvil armchair
    asteroid baby=baby baby_bottle=baby-bottle+feeding-bottle
    baby_carriage=baby-carriage+stroller+pram+baby-stroller+baby-buggy bacteria=bacteria+bacterium
    bag=bag+shopping-bag+paper-bag balance_scale=balance-scale+scales+scale-balance bamboo=pine-decoration+bamboo
    bank=bank+bank-building banknote=banknote+dollar-banknote+cash barbecue=barbecue+grill+bbq barbell barn barrel
    baseball_bat=baseball-bat bat=bat+vampire-bat beaker beer=beer+beer-mug+beer-glass+beer-stein belt bench
    bento=bento-box bikini blowfish boar bomb bone bottle=bottle+water-bottle+wine-bottle+beer-bottle
    bow_tie=bow-tie+bowtie bowl bowling_ball=bowling-ball boxing_glove=boxing-glove brain
    bridge=bridge+bridge-at-night briefs bubble_tea=bubble-tea+boba bubbles=bubbles
    building=building+office-building bulldozer butter cabinet=cabinet+file-cabinet+filing-cabinet
    cable_car=cable-car+aerial-tramway+gondola calculator camcorder=camcorder+video-camera+camera-video
    candy_cane=candy-cane canned_food=canned-food car_battery=car-battery
    caravan=caravan+camper+rv+motorhome+camper-van card_index=card-index carp_streamer=carp-streamer
    cart=shopping-cart+cart+shopping-trolley cash_register=cash-register
    cassette=cassette+cassette-tape+videocassette+vhs cctv=cctv+security-camera+cctv-camera chains=chains+chain
    chalkboard=chalkboard+blackboard champagne=champagne+champagne-bottle+bottle-with-popping-cork chandelier
    chef=cook+chef cherry_blossom=cherry-blossom+sakura chess_bishop=chess-bishop chess_king=chess-king
    chess_knight=chess-knight chess_pawn=chess-pawn+pawn chess_queen=chess-queen chess_rook=chess-rook chestnut
    chicken_leg=chicken-leg+poultry-leg+drumstick chimney chipmunk chocolate=chocolate+chocolate-bar
    chopsticks=chopsticks Christmas_tree=christmas-tree cigarette=cigarette+smoking
    clapperboard=clapperboard+clapper-board+clapper+movie-clapper clothes_hanger=clothes-hanger+hanger+coat-hanger
    clutch_bag=clutch-bag coffee_bean=coffee-bean+coffee-beans
    coffee_maker=coffee-maker+coffee-machine+espresso-machine coffin comet
    compact_disc=compact-disc+optical-disk+disc+cd+dvd+optical-disc computer_mouse=computer-mouse+mouse-computer
    control_knobs=control-knobs corkscrew cottage cowboy_hat=cowboy-hat+cowboy-hat-face
    cradle=crib+baby-crib+cradle credit_card=credit-card crutch=crutch+crutches crystal_ball=crystal-ball
    cup=cup+teacup+teacup-without-handle+tea-cup+cup-with-straw curling_stone=curling-stone
    curtain=curtain+curtains custard cutlery=cutlery+fork-and-knife+fork-knife+silverware+knife-fork+utensils
    dagger=dagger+dagger-knife dango desk desk_lamp=desk-lamp+lamp-desk+table-lamp detective=detective dishwasher
    dna dodo=dodo doorbell dresser drill=drill+electric-drill+power-drill drone
    dropper=dropper+eyedropper+eye-dropper+pipette dumbbell=dumbbell dumpling ear easel elevator engine eraser
    escalator eye face_mask=face-mask+medical-mask farm farmer=farmer faucet=faucet+tap+water-tap+water-faucet
    fax=fax+fax-machine fence ferris_wheel=ferris-wheel ferry film_projector=film-projector+projector
    film_reel=film-reel+movie-reel film_strip=film-frames+film-strip+filmstrip fire_extinguisher=fire-extinguisher
    fire_hydrant=fire-hydrant+hydrant firecracker fireplace fireworks fishing_rod=fishing-rod+fishing-pole
    fist=fist+raised-fist flag=flag flask=flask+erlenmeyer+erlenmeyer-flask+flask-conical
    flip-flop=thong-sandal+flip-flops+flip-flop floor_lamp=floor-lamp+lamp-floor
    floppy_disk=floppy-disk+floppy+diskette folder=folder+file-folder+open-file-folder fondue=fondue foot
    footprints=footprints+footsteps fork=fork forklift fortune_cookie=fortune-cookie
    french_fries=french-fries+fries fried_egg=fried-egg+egg-fried frying_pan=frying-pan+cooking+pan
    fuel_pump=gas-pump+fuel-pump+fuelpump game_console=game-console+handheld-game
    gamepad=gamepad+game-controller+video-game+controller+device-gamepad garage=garage
    gauge=gauge+speedometer+tachometer gavel=gavel+judge-hammer ghost=ghost
    glass_of_water=glass-of-water+water-glass+glass-water glasses=glasses+eyeglasses+spectacles goal_net=goal-net
    goggles golf_ball=golf-ball graduation_cap=graduation-cap+mortarboard+mortar-board greenhouse
    gun=gun+pistol+water-pistol+revolver+handgun hair_dryer=hair-dryer+hairdryer hamsa hand=hand+raised-hand
    hard_drive=hard-drive+hard-disk+hdd harp headphones=headphones+headphone
    headscarf=woman-with-headscarf+headscarf+hijab headset hearing_aid=hearing-aid heart
    high-speed_train=high-speed-train+bullet-train hockey_stick=hockey-stick+ice-hockey+field-hockey
    honey=honey+honey-pot hook hospital hot-air_balloon=hot-air-balloon+air-balloon hot_spring=hot-springs hotel
    hut ice=ice+ice-cube+ice-cubes ice_cream=ice-cream+soft-ice-cream+icecream+ice-cream-cone+cone
    ice_hockey=ice-hockey ice_skate=ice-skate+ice-skates+ice-skating iceberg id_card=id-card+identification-card
    iron=iron+ironing+clothes-iron island=island+desert-island jack-o'-lantern=jack-o-lantern jeans=jeans jeep
    juice=juice+juice-box+beverage-box kaaba kayak=kayak+kayaking kettlebell=kettlebell+weight-kettlebell keyhole
    kidney=kidney+kidneys kimono kiosk=kiosk knot=knot lab_coat=lab-coat lacrosse=lacrosse ladle
    lamp=lamp+table-lamp+desk-lamp+floor-lamp+bedside-lamp lawn_mower=lawn-mower+lawnmower leg=leg
    light_switch=light-switch lighthouse lime liver locomotive=locomotive+steam-locomotive
    lotion=lotion+lotion-bottle lotus lung=lungs+lung magic_wand=magic-wand+wand
    magnifying_glass=magnifying-glass+magnifying-glass-tilted-left+magnifying-glass-tilted-right+magnifier+loupe+magnify
    mahjong=mahjong-red-dragon+mahjong map=map+world-map+treasure-map maple_leaf=maple-leaf maracas
    mask=theater-masks+performing-arts+drama-masks+masks-theater+mask-happy measuring_cup=measuring-cup
    meat=meat+meat-on-bone medal=medal+sports-medal+military-medal+1st-place-medal+gold-medal melon menorah mermaid
    meteor metronome microchip=microchip+cpu+chip microwave=microwave+microwave-oven minibus
    money_bag=money-bag+moneybag monorail mop mosque mosquito mouth muscle=flexed-biceps+muscle+biceps
    nail=nail+nails nail_polish=nail-polish needle=sewing-needle+needle-thread nest=nest+nest-with-eggs+empty-nest
    ninja=ninja noodles=steaming-bowl+noodles+ramen+noodle nose
    notebook=notebook+spiral-notepad+notebook-with-decorative-cover+notepad nurse=nurse
    nut_and_bolt=nut-and-bolt+bolt-nut oden oil_barrel=oil-barrel+oil-drum+barrel-oil oil_lamp=diya-lamp+oil-lamp
    olive=olive+olives oven=oven+stove ox oyster pager pagoda paint_bucket=paint-bucket+paint-can
    paint_roller=paint-roller painting=framed-picture+painting pants=pants+trousers
    paper_plane=paper-plane+paper-airplane+paper-plane-tilt parasol=umbrella-on-ground+parasol+beach-umbrella
    parking_meter=parking-meter parthenon=classical-building passport=passport paw=paw+paw-prints+paw-print
    pea_pod=pea-pod+pea perfume=perfume+perfume-bottle person_bowing petri_dish=petri-dish
    pickaxe=pick+pickaxe+mining pickup_truck=pickup-truck+truck-pickup+pickup piggy_bank=piggy-bank
    pill=pill+pills+capsule pinwheel pipe=pipe pirate_flag=pirate-flag+jolly-roger
    plate=plate+fork-and-knife-with-plate playground_slide=playground-slide
    playing_card=playing-card+playing-cards+joker plug=plug+electric-plug+power-plug plunger podium
    polar_bear=polar-bear police_car=police-car policeman=police-officer+policeman poodle pool=swimming-pool+pool
    pool_ball=pool-8-ball+billiards+8-ball+billiard popsicle=popsicle pot=pot+pot-of-food+cooking-pot potion
    potted_plant=potted-plant+house-plant+houseplant+plant+plant-pot prayer_beads=prayer-beads printer
    pushpin=pushpin+round-pushpin+thumbtack+push-pin puzzle_piece=puzzle-piece+puzzle+jigsaw
    pyramid=pyramid+pyramids race_car=racing-car+race-car+formula-1 radar radish ram=ram razor=razor+shaver
    record_player=record-player+turntable red_envelope=red-envelope refrigerator=refrigerator+fridge
    remote_control=remote-control+remote+tv-remote ribbon=ribbon+reminder-ribbon
    rice=rice+cooked-rice+rice-bowl+bowl-rice rice_ball=rice-ball+onigiri rickshaw=auto-rickshaw+rickshaw
    ring_buoy=ring-buoy+lifebuoy+life-ring+life-buoy+lifesaver road=road+motorway robot rocking_horse=rocking-horse
    roller_coaster=roller-coaster+rollercoaster roller_skate=roller-skate+rollerskate+roller-skates
    rolling_pin=rolling-pin router=router+wifi-router rug safe=safe+vault+strongbox safety_pin=safety-pin sake
    salad=salad+green-salad salt=salt+salt-shaker sandal=sandal+womans-sandal santa_claus=santa-claus satellite
    satellite_dish=satellite-antenna+satellite-dish sauropod=sauropod+brontosaurus sausage
    scale=bathroom-scale+weighing-scale+weight-scale scalpel school=school school_bus=school-bus scoreboard
    seat=seat server shaved_ice=shaved-ice shelf=bookshelf+bookcase+shelf+shelves shinto_shrine=shinto-shrine+torii
    ship=ship+passenger-ship+boat-ship+cruise-ship shop=shop+store+storefront+convenience-store
    shopping_basket=shopping-basket shortcake shorts=shorts shower=shower shrimp_tempura=fried-shrimp
    shuttlecock=badminton+shuttlecock skeleton ski=ski+skis+skiing skirt skull=skull slot_machine=slot-machine
    smoke_detector=smoke-detector snowboard=snowboard+snowboarder snowmobile sock=socks+sock
    soda=soda+soda-can+cola+cup-soda+soda-cup solar_panel=solar-panel soup=soup+bowl-with-spoon+bowl-food spatula
    speaker=speaker+loudspeaker+speakers+subwoofer spider_web=spider-web+spiderweb+cobweb
    spool_of_thread=thread+spool spray_bottle=spray-bottle+spray-can+spray stadium staircase=stairs+staircase
    stapler star=star statue=statue+moai statue_of_liberty=statue-of-liberty steering_wheel=steering-wheel stool
    stopwatch=stopwatch streetlight=street-lamp+streetlight+street-light+lamp-post
    stuffed_flatbread=stuffed-flatbread+kebab+doner submarine sugar=sugar+sugar-cube sunglasses
    surfboard=surfboard+surfing suspension_railway=suspension-railway swimsuit=swimsuit+one-piece-swimsuit
    sword=sword+swords+crossed-swords synagogue table=dining-table+table-furniture+coffee-table+table-dining
    tablet=tablet+ipad+tablet-computer takeout_box=takeout-box tape=adhesive-tape+tape+tape-dispenser
    tape_measure=tape-measure+measuring-tape taxi=taxi+oncoming-taxi+cab tea=tea+teacup+teacup-without-handle
    telephone_handset=telephone-receiver+handset temple=temple+hindu-temple tennis_ball=tennis-ball+tennis
    tennis_racket=tennis-racket+tennis-racquet test_tube=test-tube+vial thermostat toast toaster
    toilet_paper=toilet-paper+roll-of-paper tongue tooth torch=torch tow_truck=tow-truck
    tower=tokyo-tower+tower+eiffel-tower traffic_cone=traffic-cone+cone-traffic
    traffic_light=traffic-light+vertical-traffic-light+horizontal-traffic-light tray treadmill
    treasure_chest=treasure-chest trolleybus trowel=trowel tumbler_glass=tumbler-glass+whiskey+whisky tunnel
    turban=turban+person-wearing-turban tuxedo=person-in-tuxedo+tuxedo tyrannosaurus=t-rex
    usb_stick=usb-stick+usb-flash-drive+usb-drive+flash-drive vacuum_cleaner=vacuum-cleaner+vacuum
    van=van+shuttle-van vest virus=virus+microbe wall wallet=wallet wardrobe warehouse
    washing_machine=washing-machine water_bottle=water-bottle+bottle-water water_buffalo=water-buffalo
    water_drop=droplet+water-drop water_heater=water-heater waterfall watering_can=watering-can webcam
    weight=weight wheat=wheat+sheaf-of-rice wheelbarrow whisk whistle wilted_flower=wilted-flower
    wind_chime=wind-chime wind_turbine=wind-turbine windmill window_blind=blinds wine=wine
    wine_bottle=wine-bottle+bottle-wine wing=wing wood=wood+wood-log wooden_sign=signpost+sign-post worm
"""


def spoken(word: str) -> str:
    """A word of the tables as a name: its "_" are spaces."""
    return word.replace("_", " ")


def _slugs(table: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in table.split():
        name, _, slugs = word.partition("=")
        found[spoken(name)] = (slugs or name.replace("_", "-")).lower().split("+")
    return found


@cache
def core() -> dict[str, list[str]]:
    """The pack's names with their emoji slugs."""
    return {name: list(row["slugs"]) for name, row in parse_names().items()}  # type: ignore[call-overload]


@cache
def photographed() -> frozenset[str]:
    """The names that only the pack's photographs have."""
    return frozenset(parse_photo_names())


@cache
def further() -> dict[str, list[str]]:
    """All other names with their slugs."""
    names = _slugs(FURTHER) | {name: [name] for name in photographed()} | _slugs(PHOTO_SLUGS)
    return {name: slugs for name, slugs in names.items() if name not in core()}


@cache
def lookup(emoji: bool) -> dict[str, list[str]]:
    """Slug -> names, as sets of emoji or other sets say it."""
    extra = _slugs(CORE_SLUGS)
    found: dict[str, list[str]] = {}
    for name, slugs in core().items():
        more = [] if emoji else [name, *extra.get(name, [])]
        for slug in dict.fromkeys([*slugs, *more]):
            if emoji or slug not in EMOJI_SLUGS:
                found.setdefault(slug, []).append(name)
    for name, slugs in further().items():
        for slug in slugs:
            found.setdefault(slug, []).append(name)
    return found
