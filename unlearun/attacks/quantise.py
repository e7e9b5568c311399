"""Keep the weights in fewer bits: what was changed by little may be rounded away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unlearun.attacks.base import Attack, Outcome, check_metrics
from unlearun.attacks.victim import Victim
from unlearun.errors import UnlearunError, check_choice
from unlearun.methods import UnlearningMethod
from unlearun.metrics import GradientNorm
from unlearun.models import QUANTISATIONS, Quantisation, missing_package


class Quantise(Attack):
    """Measures everything again with linear layers in 4 or 8 bits.

    Unlearning that moves weights by less than the step of a quantiser leaves them, quantised, as they were.
    Source: Zhang 2024, "Catastrophic Failure of LLM Unlearning via Quantization" (2410.16454).

    Args:
        kinds: "nf4" (4 bits) and "int8" of bitsandbytes, "int4" (groups of 32 weights) of torchao. What is not
            installed is skipped.
        metrics: What is measured, extraction_strength and probability among them; None: what the run measured, but for
            mia_grad_norm, since weights in few bits have no gradient.

    Raises:
        UnlearunError: A kind is none of these.
    """

    def __init__(self, kinds: Sequence[Quantisation] = QUANTISATIONS, metrics: Sequence[str] | None = None) -> None:
        if not kinds:
            raise UnlearunError(f"kinds is empty; name some of {', '.join(QUANTISATIONS)}")
        for kind in kinds:
            check_choice("kinds", kind, QUANTISATIONS)
        self.kinds = tuple(dict.fromkeys(kinds))
        self.metrics = check_metrics(metrics, self.measured)

    def run(self, victim: Victim) -> Outcome:
        """See `Attack`."""
        outcome = Outcome()
        for kind in self.kinds:
            if missing := missing_package(kind):
                outcome.skipped[kind] = missing
                continue
            try:
                method = victim.load(UnlearningMethod, quantisation=kind)
            except UnlearunError as error:  # an adapter, a GGUF file, a model of few bits
                outcome.skipped[kind] = str(error)
                continue
            outcome.variants[kind] = victim.measure_fully(method, self.metrics or _without_gradients(victim))
        return outcome


def _without_gradients(victim: Victim) -> list[Any] | None:
    measured = victim.data.get("final_metrics")
    return None if measured is None else [one for one in measured if one != GradientNorm.title]
