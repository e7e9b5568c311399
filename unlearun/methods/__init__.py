"""The methods. These imports are the catalogue: a new method is three more lines here, one a list."""

from unlearun.methods.altpo import AltPO
from unlearun.methods.base import UnlearningMethod
from unlearun.methods.ceu import CEU
from unlearun.methods.dpo import DPO
from unlearun.methods.fine_tune import FineTune
from unlearun.methods.fully_sharded import FullySharded
from unlearun.methods.grad_ascent import GradAscent
from unlearun.methods.grad_diff import GradDiff
from unlearun.methods.idk import IdkDPO, IdkNLL
from unlearun.methods.npo import NPO
from unlearun.methods.pdu import PDU
from unlearun.methods.rmu import RMU
from unlearun.methods.rr import RR
from unlearun.methods.satimp import SatImp
from unlearun.methods.simnpo import SimNPO
from unlearun.methods.task_vector import TaskVector
from unlearun.methods.tnpo import TNPO
from unlearun.methods.training import OPTIMIZER, Term
from unlearun.methods.undial import UNDIAL
from unlearun.methods.wga import WGA

METHODS: tuple[type[UnlearningMethod], ...] = (
    SimNPO,
    NPO,
    TNPO,
    RMU,
    RR,
    GradDiff,
    WGA,
    SatImp,
    UNDIAL,
    CEU,
    PDU,
    DPO,
    AltPO,
    IdkDPO,
    IdkNLL,
    TaskVector,
    GradAscent,
    FineTune,
)

__all__ = [
    "CEU",
    "DPO",
    "METHODS",
    "NPO",
    "OPTIMIZER",
    "PDU",
    "RMU",
    "RR",
    "TNPO",
    "UNDIAL",
    "WGA",
    "AltPO",
    "FineTune",
    "FullySharded",
    "GradAscent",
    "GradDiff",
    "IdkDPO",
    "IdkNLL",
    "SatImp",
    "SimNPO",
    "TaskVector",
    "Term",
    "UnlearningMethod",
]
