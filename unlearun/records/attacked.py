"""What an attack has found, as its file has it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unlearun.errors import UnlearunError
from unlearun.files import write_whole
from unlearun.records.evaluation import Evaluation, finite, read_json

Curve = list[tuple[int, float, float]]


@dataclass
class Attacked:
    """What an attack has found of one model.

    Attributes:
        attack: What it is called.
        key: Changes with the model, the data, and every setting.
        settings: The class and its arguments.
        behavioural: Whether it counts into robustness.
        measured: The two columns that it is measured by.
        variants: See `Outcome`.
        curves: See `Outcome`.
        figures: See `Outcome`.
        skipped: See `Outcome`.
        compared: See `Outcome`.
        seconds: How long it took.
    """

    attack: str
    key: str
    settings: dict[str, Any]
    behavioural: bool
    measured: tuple[str, str]
    variants: dict[str, Evaluation] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    compared: dict[str, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write it as JSON, whole or not at all.

        Args:
            file: Where to.
        """
        write_whole(file, json.dumps(finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False))

    @classmethod
    def read(cls, file: Path) -> Attacked | None:
        """Read what `write` wrote; None where there is no such file, or it is none of ours.

        Args:
            file: Where it is.
        """
        try:
            stored = read_json(file)
            variants = {name: Evaluation.from_json(one, str(file)) for name, one in stored["variants"].items()}
            curves = {name: [_point(point) for point in points] for name, points in stored["curves"].items()}
            first, second = stored["measured"]
            return cls(**{**stored, "variants": variants, "curves": curves, "measured": (first, second)})
        except (UnlearunError, KeyError, TypeError, ValueError, AttributeError):
            return None


def _point(point: Any) -> tuple[int, float, float]:  # noqa: ANN401 - any JSON value
    step, first, second = point
    first, second = (math.nan if value is None else float(value) for value in (first, second))
    return int(step), first, second
