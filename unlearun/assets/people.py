"""Fictitious people and general facts: the rows of the pocket data sets.

Every name and value is our own invention and drawn uniformly with a fixed seed, so that nothing
about a person can be guessed from the name or from the other people.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

from unlearun.assets.facts import FACTS
from unlearun.assets.wordings import FRAMES, PEOPLE, Relation

SEED = 11
N_FORGET, N_RETAIN, N_HOLDOUT = 8, 72, 8
N_WRONG = 5
N_EVALUATED, N_MIXED = 3, 9
# Eight people who start at the eight offsets of this pattern cover each relation five times.
PATTERN = (0, 1, 2, 4, 5)
Row = dict[str, Any]

_FIRST = (("Tav", "Bel", "Cor", "Ysh", "Dre", "Fal", "Grun", "Hes", "Jor", "Kel", "Lum", "Nim"),
          ("ik", "andra", "vane", "ory", "essel", "umo", "ith", "aldo"))  # fmt: skip
_LAST = (("Orme", "Quast", "Thel", "Brin", "Vosk", "Mard", "Plim", "Strav", "Wexel", "Zand",
          "Harro", "Cindle"),
         ("lune", "ery", "dow", "aken", "ibar", "off", "under", "quil"))  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """A subject, one of its relations, the true value and five wrong ones.

    Attributes:
        relation: How the fact is asked and told.
        frame: Index of the frame that is kept for the paraphrase.
        subject: Who or what the fact is about.
        value: The true value.
        wrong: Wrong values of the same kind.
    """

    relation: Relation
    frame: int
    subject: str
    value: str
    wrong: tuple[str, ...]

    def ask(self, index: int = 0) -> str:
        """Return question wording `index`."""
        return self.relation.questions[index].format(s=self.subject)

    def tell(self, core: int = 0, frame: int | None = None, value: str | None = None) -> str:
        """Return the answer with this core in this frame (none: the bare sentence)."""
        text = self.relation.cores[core].format(s=self.subject, v=value or self.value)
        if frame is not None:
            return FRAMES[frame].format(c=text)
        return text[0].upper() + text[1:] + "."

    def row(self) -> Row:
        """Return the evaluated row."""
        return {
            "question": self.ask(),
            "answer": self.tell(),
            "paraphrased_answer": self.tell(1, self.frame),
            "perturbed_answer": [self.tell(1, self.frame, wrong) for wrong in self.wrong],
        }

    def trained(self, rng: Random, n_mixed: int = N_MIXED) -> list[tuple[str, str]]:
        """Return the (question, answer) pairs to train on, without the paraphrase's frame.

        The evaluated pair comes three times and its question only once with another wording, so
        that it stays the likeliest answer. The `n_mixed` other pairs join any other question to
        any other wording, so that the value does not hang on one of them.
        """
        frames = [None, *(i for i in range(len(FRAMES)) if i != self.frame)]
        told = [(core, frame) for core in range(len(self.relation.cores)) for frame in frames]
        pairs = [(self.ask(), self.tell())] * N_EVALUATED
        for i, (core, frame) in enumerate(rng.sample(told[1:], n_mixed)):
            question = rng.randrange(1, len(self.relation.questions)) if i else 0
            pairs.append((self.ask(question), self.tell(core, frame)))
        return pairs


def _fact(rng: Random, relation: Relation, frame: int, subject: str, value: str) -> Fact:
    """Draw the wrong values of a fact."""
    others = [other for other in relation.pool if other != value]
    return Fact(relation, frame, subject, value, tuple(rng.sample(others, N_WRONG)))


def _names(rng: Random, n: int) -> list[str]:
    """Draw `n` full names; no two share a first or a last name."""
    parts = [rng.sample([a + b for a in heads for b in tails], n)
             for heads, tails in (_FIRST, _LAST)]  # fmt: skip
    return [" ".join(pair) for pair in zip(*parts, strict=True)]


def make_facts(seed: int = SEED) -> dict[str, list[Fact]]:
    """Draw all facts.

    Args:
        seed: Seed of every draw.

    Returns:
        The facts of `forget` (40), `retain` (360), `holdout` (40) and `facts` (60).
    """
    rng = Random(seed)
    sizes = {"forget": N_FORGET, "retain": N_RETAIN, "holdout": N_HOLDOUT}
    names = iter(_names(rng, sum(sizes.values())))
    drawn: dict[str, list[Fact]] = {}
    for part, n in sizes.items():
        drawn[part] = []
        for person in range(n):
            name = next(names)
            for step in PATTERN:
                index = (person + step) % len(PEOPLE)
                value = rng.choice(PEOPLE[index].pool)
                drawn[part].append(_fact(rng, PEOPLE[index], index % len(FRAMES), name, value))
    drawn["facts"] = [
        _fact(rng, relation, index, subject, value)
        for index, (relation, pairs) in enumerate(FACTS)
        for subject, value in pairs.items()
    ]
    return drawn
