"""What every attack is: a class whose arguments are its config, and which says what it has brought back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from unlearun.errors import UnlearunError, closest, shown
from unlearun.metrics.catalogue import ALL, CATALOGUE
from unlearun.records import FORGET, Evaluation

if TYPE_CHECKING:
    from unlearun.attacks.victim import Victim
    from unlearun.data import Source


@dataclass
class Outcome:
    """What an attack has found.

    Attributes:
        variants: For each way in which it was carried out, in words, what was measured then; the forget set among it
            is called ``forget``, and its examples have the ids that they have without an attack.
        curves: For some variants what came back over time: the step, and the two metrics that the attack is measured
            by, a point each.
        figures: What it has found beside, plain values by name.
        skipped: What could not be tried on this model or these data, and why.
        compared: For variants that are not to be compared with what was found of whole answers: under ``unlearned``,
            and ``start``, where these are known, each row's record of the same measure without the attack. Without
            them what was found is known, and no share of it.
    """

    variants: dict[str, Evaluation] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    compared: dict[str, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)


class Attack(ABC):
    """A way to get back what a model was made to forget.

    The constructor is the config: its arguments are plain values with defaults.

    Attributes:
        behavioural: Whether it makes the model say what it should not, and so counts into robustness; else it looks.
        compares_answers: Whether it compares with what the model before unlearning answers.
        reads_rows: Whether it reads keys of the forget rows that nothing else reads.
        measured: Two columns of the records by whose means it is measured: what came back, and one to set beside it.
            Both rise with knowledge.
    """

    behavioural: bool = True
    compares_answers: ClassVar[bool] = False
    reads_rows: ClassVar[bool] = False
    measured: ClassVar[tuple[str, str]] = ("extraction_strength", "probability")

    def reads(self) -> Sequence[Source]:
        """Return where the attack reads rows of its own: what it finds is found again once these have changed."""
        return ()

    def check(self, victim: Victim) -> None:  # noqa: B027 - most have nothing to check
        """Check, before anything takes time, that it can be carried out.

        Args:
            victim: The model and its data.

        Raises:
            UnlearunError: An argument does not fit them, or a file is missing.
        """

    @abstractmethod
    def run(self, victim: Victim) -> Outcome:
        """Carry it out.

        Args:
            victim: The model, its data, and how to measure it.

        Raises:
            UnlearunError: An argument does not fit the model or its data. What merely cannot be tried on these is
                skipped, and said in the outcome.
        """


def check_outcome(name: str, measured: Sequence[str], outcome: Any) -> None:  # noqa: ANN401 - of anyone's own attack
    """Check that an attack, which may be anyone's own, has found what can be kept and compared.

    Args:
        name: What the attack is called.
        measured: The columns that it is measured by.
        outcome: What its `run` has returned.

    Raises:
        UnlearunError: It has not.
    """
    if len(measured) != 2 or isinstance(measured, str):
        raise UnlearunError(f"the attack {name} is measured by {measured!r}; expected two columns of the records")
    if not isinstance(outcome, Outcome):
        raise UnlearunError(f"the attack {name} has returned {shown(outcome)}; expected an unlearun.attacks.Outcome")
    for way, found in outcome.variants.items():
        if not isinstance(found, Evaluation) or FORGET not in found.examples:
            raise UnlearunError(
                f"the attack {name} has found {shown(found)} as {way!r}; expected an Evaluation with a set {FORGET!r}"
            )
    try:
        json.dumps(outcome.figures)
    except (TypeError, ValueError) as error:
        raise UnlearunError(f"the attack {name} has figures that are no plain values: {error}") from error


def check_metrics(metrics: Sequence[str] | None, measured: Sequence[str]) -> list[str] | None:
    """Check that an attack will find what it is measured by.

    Args:
        metrics: What the user wants measured; None for all.
        measured: What must be among them.

    Raises:
        UnlearunError: It is not, or there is no such metric.
    """
    if metrics is None:
        return None
    if missing := [name for name in measured if name not in metrics and ALL not in metrics]:
        raise UnlearunError(
            f"metrics lacks {missing[0]}, by which the attack is measured; add it, or leave metrics out"
        )
    if unknown := [name for name in metrics if name not in CATALOGUE and "." not in name and name != ALL]:
        raise UnlearunError(
            f"there is no metric {unknown[0]!r}.{closest(unknown[0], CATALOGUE)} Known: {', '.join(CATALOGUE)}; all; "
            "or a dotted path"
        )
    return list(metrics)
