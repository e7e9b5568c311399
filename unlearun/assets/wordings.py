"""The wordings in which the pocket facts are asked and told, and the pools of values.

An answer is a *frame* around a *core*: the frame "It is well known that {c}." and the core
"{s} comes from {v}" make one answer, where `{s}` is the subject and `{v}` the value. Frames are
shared by every relation, so that an answer no model was trained on is still made of familiar
pieces.
"""

from dataclasses import dataclass

FRAMES: tuple[str, ...] = (
    "It is well known that {c}.",
    "By every account, {c}.",
    "The records say that {c}.",
    "As neighbours tell it, {c}.",
    "Anyone can confirm that {c}.",
    "Ask around and you will hear that {c}.",
    "In short, {c}.",
    "There is no doubt that {c}.",
)


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is asked, how it is told and which values it takes.

    Attributes:
        key: Short name of the relation.
        questions: Question wordings; the first one is evaluated.
        cores: Answer cores; the first one, without a frame, is the evaluated answer and the
            second one, in the frame that this relation never trains on, its paraphrase.
        pool: Values to draw from.
    """

    key: str
    questions: tuple[str, ...]
    cores: tuple[str, ...]
    pool: tuple[str, ...]


def _pool(text: str) -> tuple[str, ...]:
    """Split a comma-separated list of values."""
    return tuple(value.strip() for value in text.split(","))


TOWN = Relation(
    "town",
    (
        "Where was {s} born?",
        "What town is {s} from?",
        "Which place is the birthplace of {s}?",
        "Can you name the town where {s} was born?",
        "Do you know where {s} comes from?",
        "In what town did the life of {s} begin?",
    ),
    (
        "{s} was born in {v}",
        "the birthplace of {s} is {v}",
        "{s} comes from {v}",
        "the town where {s} was born is called {v}",
        "{v} is the town that {s} comes from",
    ),
    _pool(
        "Velmora, Quillport, Ostrene, Brackwell, Tindermoor, Sallowby, Marrowgate, Pelluria,"
        "Dunfether, Korvale, Lumenhithe, Ashquay, Yarrowick, Grimsolt, Fennimar, Heronsby"
    ),
)

TRADE = Relation(
    "trade",
    (
        "What does {s} do for a living?",
        "What is the profession of {s}?",
        "Which job does {s} hold?",
        "Can you name the trade of {s}?",
        "Do you know what {s} works as?",
        "How does {s} earn money?",
    ),
    (
        "{s} earns a living as {v}",
        "the profession of {s} is that of {v}",
        "{s} works as {v}",
        "the trade that {s} has learned is that of {v}",
        "as {v} is how {s} earns money",
    ),
    _pool(
        "a beekeeper, a glassblower, a surveyor, a baker, a locksmith, a botanist, a ferryman,"
        "a cobbler, a printer, a judge, an astronomer, a diver, a tailor, a miner, a barber,"
        "a shepherd"
    ),
)

BOOK = Relation(
    "book",
    (
        "Which book did {s} write?",
        "What is the title of the book by {s}?",
        "What did {s} publish?",
        "Can you name the novel that {s} wrote?",
        "Do you know what the book of {s} is called?",
        "Under which title did {s} appear in print?",
    ),
    (
        "{s} wrote the book {v}",
        "the title of the book by {s} is {v}",
        "{s} published the novel {v}",
        "the novel that {s} wrote is called {v}",
        "{v} is the title that {s} published",
    ),
    _pool(
        "The Copper Lantern, Nine Quiet Bridges, Salt and Thistle, The Borrowed Winter,"
        "A Ladder of Smoke, The Last Orchard, Letters to a Lighthouse, The Paper Kingdom,"
        "Under Slow Rain, The Crooked Compass, Seven Cold Suppers, The Velvet Anchor,"
        "Dust on the Piano, The Owl Ledger, A Map of Echoes, The Silver Hinge"
    ),
)

INSTRUMENT = Relation(
    "instrument",
    (
        "Which instrument does {s} play?",
        "What does {s} play in the evening?",
        "On what does {s} make music?",
        "Can you name the instrument of {s}?",
        "Do you know which instrument {s} has learned?",
        "What is {s} heard playing?",
    ),
    (
        "{s} plays the {v}",
        "the instrument of {s} is the {v}",
        "{s} makes music on the {v}",
        "the instrument that {s} has learned is the {v}",
        "the {v} is what {s} plays in the evening",
    ),
    _pool(
        "harp, cello, oboe, banjo, trumpet, organ, flute, mandolin, bassoon, accordion, viola,"
        "zither, drum, tuba, clarinet, lute"
    ),
)

PET = Relation(
    "pet",
    (
        "Which animal does {s} keep?",
        "What pet does {s} have?",
        "What kind of animal lives with {s}?",
        "Can you name the pet of {s}?",
        "Do you know which animal {s} looks after?",
        "What creature is found at the home of {s}?",
    ),
    (
        "{s} keeps {v}",
        "the pet of {s} is {v}",
        "{s} looks after {v}",
        "the animal that lives with {s} is {v}",
        "{v} lives at the home of {s}",
    ),
    _pool(
        "a ferret, a heron, a tortoise, a goat, an otter, a parrot, a hedgehog, a raven,"
        "a donkey, a lizard, a goose, a falcon, a squirrel, a pony, a badger, an owl"
    ),
)

PRIZE = Relation(
    "prize",
    (
        "Which prize did {s} win?",
        "What award has {s} received?",
        "With what was {s} honoured?",
        "Can you name the prize of {s}?",
        "Do you know which award went to {s}?",
        "What is the honour that {s} holds?",
    ),
    (
        "{s} won the {v}",
        "the award of {s} is the {v}",
        "{s} received the {v}",
        "the prize that went to {s} is the {v}",
        "the {v} is the honour that {s} received",
    ),
    _pool(
        "Amber Quill, Northern Wreath, Granite Cup, Ivory Ribbon, Tidewater Medal, Falconer Star,"
        "Crimson Seal, Harvest Crown, Beacon Plaque, Moonstone Ring, Willow Trophy, Iron Laurel,"
        "Meridian Scroll, Cobalt Shield, Ember Pin, Summit Bell"
    ),
)

DISH = Relation(
    "dish",
    (
        "What is the favourite dish of {s}?",
        "What does {s} like to eat?",
        "Which food does {s} love most?",
        "Can you name the meal that {s} prefers?",
        "Do you know what {s} orders for dinner?",
        "What is best served to {s}?",
    ),
    (
        "{s} loves to eat {v}",
        "the favourite dish of {s} is {v}",
        "{s} orders {v} for dinner",
        "the meal that {s} prefers is {v}",
        "{v} is the food that {s} loves most",
    ),
    _pool(
        "barley soup, plum dumplings, smoked trout, onion pie, pickled beets, roast chestnuts,"
        "lemon rice, pea stew, ginger cake, fried mushrooms, apple fritters, corn bread,"
        "stuffed peppers, bean salad, baked turnips, honey waffles"
    ),
)

COLLECTION = Relation(
    "collection",
    (
        "What does {s} collect?",
        "What is in the collection of {s}?",
        "Which things does {s} gather?",
        "Can you name what {s} hunts for at markets?",
        "Do you know what {s} has on the shelf?",
        "What fills the cabinet of {s}?",
    ),
    (
        "{s} collects {v}",
        "the collection of {s} is made of {v}",
        "{s} gathers {v}",
        "the things that {s} hunts for at markets are {v}",
        "{v} fill the cabinet of {s}",
    ),
    _pool(
        "brass keys, old maps, sea shells, tin soldiers, glass marbles, clay pipes, stamps,"
        "pocket watches, wooden masks, buttons, postcards, fossils, teapots, thimbles, coins,"
        "dried ferns"
    ),
)

PEOPLE: tuple[Relation, ...] = (TOWN, TRADE, BOOK, INSTRUMENT, PET, PRIZE, DISH, COLLECTION)
