"""Is it really gone? Attacks that try to bring back what a model was made to forget."""

from unlearun.attacks.attacking import attack
from unlearun.attacks.base import Attack, Outcome
from unlearun.attacks.give_away import GiveAway
from unlearun.attacks.jailbreak import Jailbreak
from unlearun.attacks.light_relearn import LightRelearn
from unlearun.attacks.look_inside import LookInside
from unlearun.attacks.quantise import Quantise
from unlearun.attacks.relearn import Relearn
from unlearun.attacks.reword import Reword
from unlearun.attacks.sample import Sample
from unlearun.attacks.victim import Victim
from unlearun.attacks.victim_of_run import read_victim

__all__ = [
    "Attack",
    "GiveAway",
    "Jailbreak",
    "LightRelearn",
    "LookInside",
    "Outcome",
    "Quantise",
    "Relearn",
    "Reword",
    "Sample",
    "Victim",
    "attack",
    "read_victim",
]
