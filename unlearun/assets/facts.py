"""Sixty general facts that every reader knows, in the wordings of `wordings`."""

from unlearun.assets.wordings import Relation


def _pairs(text: str) -> dict[str, str]:
    """Read `subject=value` pairs separated by commas."""
    return dict(pair.strip().split("=") for pair in text.split(","))


def _relation(
    key: str, questions: tuple[str, ...], cores: tuple[str, ...], pairs: dict[str, str]
) -> tuple[Relation, dict[str, str]]:
    """Build a relation whose pool is the set of values of its pairs."""
    return Relation(key, questions, cores, tuple(sorted(set(pairs.values())))), pairs


CAPITAL = _relation(
    "capital",
    (
        "What is the capital of {s}?",
        "Which city is the capital of {s}?",
        "Can you name the capital of {s}?",
        "Do you know from which city {s} is governed?",
    ),
    (
        "the capital of {s} is {v}",
        "the capital city of {s} is called {v}",
        "{s} has its capital in {v}",
        "{v} is the city from which {s} is governed",
    ),
    _pairs(
        "France=Paris, Italy=Rome, Spain=Madrid, Japan=Tokyo, Egypt=Cairo, Norway=Oslo,"
        "Austria=Vienna, Greece=Athens, Poland=Warsaw, Peru=Lima, Cuba=Havana, Kenya=Nairobi"
    ),
)

MONEY = _relation(
    "money",
    (
        "What is the currency of {s}?",
        "With which money do people pay in {s}?",
        "Can you name the currency of {s}?",
        "Do you know what coins are used in {s}?",
    ),
    (
        "the currency of {s} is the {v}",
        "the money of {s} is called the {v}",
        "people in {s} pay with the {v}",
        "the {v} is the currency used in {s}",
    ),
    _pairs(
        "India=rupee, China=yuan, Russia=ruble, Mexico=peso, Sweden=krona, Brazil=real,"
        "Turkey=lira, Switzerland=franc, Britain=pound, Thailand=baht, Vietnam=dong, Canada=dollar"
    ),
)

YOUNG = _relation(
    "young",
    (
        "What is a young {s} called?",
        "Which word stands for a baby {s}?",
        "Can you name the young of the {s}?",
        "Do you know what people call a little {s}?",
    ),
    (
        "a young {s} is called a {v}",
        "the word for a baby {s} is {v}",
        "people call a little {s} a {v}",
        "{v} is the word for the young of the {s}",
    ),
    _pairs(
        "dog=puppy, cat=kitten, cow=calf, horse=foal, sheep=lamb, pig=piglet, hen=chick,"
        "duck=duckling, swan=cygnet, bear=cub, deer=fawn, frog=tadpole"
    ),
)

COLOUR = _relation(
    "colour",
    (
        "What colour is {s}?",
        "Which colour does {s} have?",
        "Can you name the colour of {s}?",
        "Do you know how {s} is coloured?",
    ),
    (
        "the colour of {s} is {v}",
        "{s} has the colour {v}",
        "the colour that {s} has is {v}",
        "{v} is the colour of {s}",
    ),
    _pairs(
        "fresh snow=white, ripe lemon peel=yellow, summer grass=green, a clear sky=blue,"
        "a carrot=orange, coal=black, blood=red, chocolate=brown, an elephant=grey,"
        "a flamingo=pink, lavender=purple, an emerald=green"
    ),
)

COUNT = _relation(
    "count",
    (
        "How many {s} are there?",
        "What is the number of {s}?",
        "Can you tell how many {s} one counts?",
        "Do you know the count of {s}?",
    ),
    (
        "the number of {s} is {v}",
        "the count of {s} comes to {v}",
        "one counts {s} and finds {v}",
        "{v} is the number of {s}",
    ),
    _pairs(
        "legs on a spider=eight, days in a week=seven, legs on a beetle=six,"
        "fingers on one hand=five, seasons in a year=four, sides of a triangle=three,"
        "wheels on a bicycle=two, months in a year=twelve, players in a football team=eleven,"
        "moons of the Earth=one, players in a baseball team=nine, years in a decade=ten"
    ),
)

FACTS: tuple[tuple[Relation, dict[str, str]], ...] = (CAPITAL, MONEY, YOUNG, COLOUR, COUNT)
