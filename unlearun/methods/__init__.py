"""The methods. These imports are the catalogue: a new method is one more line here."""

from unlearun.methods.base import OPTIMIZER, Term, UnlearningMethod
from unlearun.methods.dpo import DPO
from unlearun.methods.grad_ascent import GradAscent
from unlearun.methods.grad_diff import GradDiff
from unlearun.methods.npo import NPO
from unlearun.methods.rmu import RMU
from unlearun.methods.simnpo import SimNPO

METHODS: tuple[type[UnlearningMethod], ...] = (GradAscent, GradDiff, NPO, DPO, RMU, SimNPO)

__all__ = ["DPO", "METHODS", "NPO", "OPTIMIZER", "RMU", "GradAscent", "GradDiff", "SimNPO", "Term", "UnlearningMethod"]
