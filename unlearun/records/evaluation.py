"""What one evaluation found, and its file."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unlearun.errors import SHOWN, UnlearunError
from unlearun.files import write_whole

# More levels of mappings and lists than any kind of records has, and fewer than Python can print or compare.
DEEPEST = 100
# What may stand in a fingerprint under the names that are read again; null as if it were not there.
_FACTS: dict[str, type] = {
    **dict.fromkeys(("kind", "model", "method", "tokenizer", "retain_reference"), str),
    **dict.fromkeys(("template", "sets"), dict),
    "cautions": list,
}
ROLES = ("forget", "retain", "holdout", "utility")


def role_of(name: str) -> str:
    """Say what part an evaluated set plays: the one that it is named after, else it is knowledge to keep.

    Args:
        name: The set: a role, alone or before a digit, an underscore or a hyphen.

    Returns:
        "forget", "retain", "holdout" or "utility".

    >>> role_of("forget_paraphrased"), role_of("retain90"), role_of("forgetting_curve")
    ('forget', 'retain', 'utility')
    """
    named = re.match(rf"({'|'.join(ROLES)})(?=$|[_\-\d])", name)
    return named[1] if named else "utility"


@dataclass
class Evaluation:
    """What one evaluation found.

    Attributes:
        step: After how many optimizer steps; 0 is before the first.
        summary: Values keyed ``set/metric``, and the aggregates.
        examples: For each set and example id, a value a metric, and texts.
        fingerprint: What was measured on what: model, versions, template, and for each set its role, source, row
            count and digest. A set is ``partial`` where the run was cut short: its rows are then those that were found.
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
        write_whole(file, json.dumps(finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False))

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
        numbers = {
            key: {n: number_of(value) for n, value in stored.get(key, {}).items()} for key in ("summary", "given")
        }
        intervals = {name: tuple(number_of(end) for end in ends) for name, ends in stored.get("intervals", {}).items()}
        return cls(**{**stored, **numbers, "intervals": intervals})


def is_ours(stored: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Say whether a JSON value is what `Evaluation.write` writes."""
    return isinstance(stored, dict) and all(isinstance(stored.get(key), dict) for key in ("summary", "examples"))


def read_json(file: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON file.

    Args:
        file: Where it is.

    Raises:
        UnlearunError: It does not exist, is no JSON, or is nested too deeply.
    """
    try:
        raw = file.read_bytes()
    except (OSError, ValueError) as error:
        raise UnlearunError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        stored = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise UnlearunError(
            f"{file} is no JSON ({error}); expected the records of an evaluation. One that was cut off is no "
            "longer of use: remove it, and evaluate again"
        ) from error
    except RecursionError as error:
        raise _too_deep(file) from error
    level = [stored]
    for _ in range(DEEPEST):
        level = [inner for value in level if isinstance(value, (dict, list)) for inner in _inside(value)]
    if level:
        raise _too_deep(file)
    return stored


def _problems(stored: dict[str, Any]) -> list[str]:
    """Say what keeps a JSON value from being what `Evaluation.write` writes."""
    problems = [f"it has a {key!r}" for key in stored if key not in Evaluation.__dataclass_fields__]
    if not isinstance(stored.get("step"), int):
        problems.append("its 'step' is no whole number")
    metrics = stored.get("metrics", [])
    if not _is_texts(metrics):
        problems.append(f"its 'metrics' is {metrics!r:.40}, no list of names")
    for key, fits in _VALUES.items():
        values = stored.get(key, {})
        if not isinstance(values, dict):
            problems.append(f"its {key!r} is no mapping")
        else:
            problems += [f"its '{key}/{name}' is {v!r:.40}" for name, v in values.items() if not fits(v)]
    problems += _problems_of_fingerprint(stored.get("fingerprint"))
    rows = [(name, rows) for name, rows in stored["examples"].items() if isinstance(rows, dict)]
    return problems + [
        f"its 'examples/{name}/{index}' is {record!r:.40}"
        for name, records in rows
        for index, record in records.items()
        if not isinstance(record, dict)
    ]


def _problems_of_fingerprint(facts: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    if not isinstance(facts, dict):
        return []
    known = {name: facts[name] for name in _FACTS if facts.get(name) is not None}
    problems = [
        f"its 'fingerprint/{name}' is {v!r:.40}" for name, v in known.items() if not isinstance(v, _FACTS[name])
    ]
    sets = known.get("sets")
    for name, found in sets.items() if isinstance(sets, dict) else ():
        rows = found.get("rows", 0) if isinstance(found, dict) else None
        if not isinstance(rows, int):
            problems.append(f"its 'fingerprint/sets/{name}' is {found!r:.40}, no mapping with a number of rows")
    return problems


def _is_number(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Say whether a value is a number that a double holds, or null."""
    if isinstance(value, int):
        return abs(value) <= sys.float_info.max
    return value is None or isinstance(value, float)


def _is_texts(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_interval(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(value, list) and len(value) == 2 and all(_is_number(end) for end in value)


# What stands in each mapping of the file.
_VALUES: dict[str, Callable[[Any], bool]] = {
    "summary": _is_number,
    "given": _is_number,
    "examples": lambda value: isinstance(value, dict),
    "intervals": _is_interval,
    "parts": _is_texts,
    "fingerprint": lambda value: True,
}


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _too_deep(file: Path) -> UnlearunError:
    return UnlearunError(f"{file} is nested deeper than {DEEPEST} levels; expected the records of an evaluation")


def number_of(value: float | None) -> float:
    """Return a number as a file has it: null, which stands for NaN and infinity there, is NaN.

    Args:
        value: The JSON value.
    """
    return math.nan if value is None else float(value)


def finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value with null in place of NaN and infinity, which JSON lacks.

    Args:
        value: Mappings, lists and plain values.
    """
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
