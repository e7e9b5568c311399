"""What one evaluation found, and its file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unlearun.errors import SHOWN, UnlearunError
from unlearun.files import write_whole

_NUMBER = (int, float, type(None))
# What stands in each mapping of the file.
_VALUES: dict[str, Any] = {
    "summary": _NUMBER,
    "given": _NUMBER,
    "examples": dict,
    "intervals": list,
    "parts": list,
    "fingerprint": object,
}
ROLES = ("forget", "retain", "holdout", "utility")


def role_of(name: str) -> str:
    """Say what part an evaluated set plays: what its name begins with, else it is knowledge to keep.

    Args:
        name: The set.

    Returns:
        "forget", "retain", "holdout" or "utility".

    >>> role_of("forget_paraphrased"), role_of("real_authors")
    ('forget', 'utility')
    """
    return next((role for role in ROLES if name.startswith(role)), "utility")


@dataclass
class Evaluation:
    """What one evaluation found.

    Attributes:
        step: After how many optimizer steps; 0 is before the first.
        summary: Values keyed ``set/metric``, and the aggregates.
        examples: For each set and example id, a value a metric, and texts.
        fingerprint: What was measured on what: model, versions, template, and for each set its role, source, row
            count and digest.
        intervals: The 95% bootstrap confidence interval of values in ``summary``.
        parts: What each aggregate was made of.
        metrics: The metrics that were asked for, by name or dotted path.
        given: Values that a published file states without the examples behind them.
    """

    step: int
    summary: dict[str, float] = field(default_factory=dict)
    examples: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    given: dict[str, float] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write it as JSON, whole or not at all; NaN and infinity, which JSON lacks, as null."""
        write_whole(file, json.dumps(_finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False))

    @classmethod
    def read(cls, file: Path) -> Evaluation:
        """Read what `write` wrote; null is NaN.

        Args:
            file: An ``eval/step=N.json``.

        Raises:
            UnlearunError: It does not exist, is no JSON, or is none of ours.
        """
        return cls.from_json(read_json(file), str(file))

    @classmethod
    def from_json(cls, stored: Any, where: str) -> Evaluation:  # noqa: ANN401 - any JSON value
        """Make one of what `write` wrote.

        Args:
            stored: The JSON value.
            where: The file, for messages.

        Raises:
            UnlearunError: It is none of ours.
        """
        problems = _problems(stored) if is_ours(stored) else ["it holds no summary and examples"]
        if problems:
            raise UnlearunError(
                f"{where} is no evaluation of unlearun: {'; '.join(problems[:SHOWN])}; "
                "expected an eval/step=N.json of a run folder"
            )
        numbers = {key: {n: _number(value) for n, value in stored.get(key, {}).items()} for key in ("summary", "given")}
        intervals = {name: tuple(_number(end) for end in ends) for name, ends in stored.get("intervals", {}).items()}
        return cls(**{**stored, **numbers, "intervals": intervals})


def is_ours(stored: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Say whether a JSON value is what `Evaluation.write` writes."""
    return isinstance(stored, dict) and all(isinstance(stored.get(key), dict) for key in ("summary", "examples"))


def read_json(file: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON file.

    Args:
        file: Where it is.

    Raises:
        UnlearunError: It does not exist, or is no JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnlearunError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UnlearunError(f"{file} is no JSON ({error}); expected the records of an evaluation") from error


def _problems(stored: dict[str, Any]) -> list[str]:
    """Say what keeps a JSON value from being what `Evaluation.write` writes."""
    problems = [f"it has a {key!r}" for key in stored if key not in Evaluation.__dataclass_fields__]
    if not isinstance(stored.get("step"), int):
        problems.append("its 'step' is no whole number")
    for key, kind in _VALUES.items():
        values = stored.get(key, {})
        if not isinstance(values, dict):
            problems.append(f"its {key!r} is no mapping")
        else:
            problems += [f"its '{key}/{name}' is {v!r:.40}" for name, v in values.items() if not isinstance(v, kind)]
    rows = [(name, rows) for name, rows in stored["examples"].items() if isinstance(rows, dict)]
    return problems + [
        f"its 'examples/{name}/{index}' is {record!r:.40}"
        for name, records in rows
        for index, record in records.items()
        if not isinstance(record, dict)
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
