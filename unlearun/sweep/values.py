"""What stands behind ``--grid`` and ``--search``: keys of fit, and the values or the range of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from unlearun.errors import UnlearunError

OPEN, CLOSED = "[{", "]}"
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})(:\w+)?")
REFUSED = {
    "output_dir": "the sweep gives each run a folder of its own",
    "print_config": "it prints, and runs nothing",
}


@dataclass(frozen=True)
class Range:
    """Numbers to draw from.

    Attributes:
        low: The least.
        high: The greatest.
        log: Whether each factor is as likely as another, and not each difference.
        whole: Whether only whole numbers are drawn.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


def plain(key: str) -> str:
    """Return a key as configs and messages call it.

    >>> plain("--model.init_args.gamma"), plain("optimizer.lr")
    ('model.gamma', 'optimizer.lr')
    """
    return key.removeprefix("--").replace(".init_args.", ".")


def read_grid(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read what follows ``--grid``.

    Args:
        texts: One ``KEY=VALUE,VALUE,...`` each.

    Returns:
        The values of each key, as fit takes them.

    Raises:
        UnlearunError: A key stands twice, or its values are none, or not all different.
    """
    return {key: _values(key, values) for key, values in _keys("--grid", texts).items()}


def read_search(texts: Sequence[str]) -> dict[str, str]:
    """Read what follows ``--search``.

    Args:
        texts: One ``KEY=LOW..HIGH``, ``KEY=LOW..HIGH:log`` or ``KEY=VALUE,VALUE,...`` each.

    Returns:
        What stands behind each key; `read_space` understands it.

    Raises:
        UnlearunError: A key stands twice, or what stands behind it is no range and no list.
    """
    search = _keys("--search", texts)
    for key, text in search.items():
        read_space(key, text)
    return search


def read_space(key: str, text: str) -> Range | list[str]:
    """Read the range, or the values, that a key may have.

    Args:
        key: For messages.
        text: ``LOW..HIGH``, maybe with ``:log``, or values with commas between them. A range whose ends are written
            as whole numbers has whole numbers only.

    Raises:
        UnlearunError: The range is empty, or the values are.

    >>> read_space("optimizer.lr", "1e-5..1e-3:log")
    Range(low=1e-05, high=0.001, log=True, whole=False)
    >>> read_space("trainer.max_epochs", "2..8")
    Range(low=2.0, high=8.0, log=False, whole=True)
    >>> read_space("model", "RMU,NPO")
    ['RMU', 'NPO']
    """
    found = RANGE.fullmatch(text.replace(" ", ""))
    if found is None:
        return _values(key, text)
    low, high, how = float(found[1]), float(found[2]), found[3]
    if how not in (None, ":log"):
        raise UnlearunError(f"--search {key}={text} ends with {how!r}; a range may end with :log, or with nothing")
    if not low < high:
        raise UnlearunError(f"--search {key}={text} is an empty range; its second number must be the greater")
    if how and low <= 0:
        raise UnlearunError(f"--search {key}={text} begins at {low:g}; with :log it must begin above 0")
    whole = all(re.fullmatch(r"[+-]?\d+", end) for end in (found[1], found[2]))
    return Range(low, high, bool(how), whole)


def split_values(text: str) -> list[str]:
    """Split at the commas that stand in no brackets and no quotes.

    >>> split_values("[a,b],[c]")
    ['[a,b]', '[c]']
    >>> split_values("1e-4, 'a, b',don't")
    ['1e-4', "'a, b'", "don't"]
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        before = parts[-1].rstrip()
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and (not before or (depth and before[-1] in "[{,:")):
            quote = character  # one inside a word, as in "don't", is none
        elif character in OPEN:
            depth += 1
        elif character in CLOSED:
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    if depth or quote:
        raise UnlearunError(f"{text!r} has {'a quote' if quote else 'a bracket'} without its partner")
    return [part.strip() for part in parts]


def _keys(flag: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = plain(key.strip())
        if not key or not equals:
            raise UnlearunError(f"{flag} {text!r} has no value; expected KEY=VALUE,VALUE, as in model.gamma=1,2,5")
        if key in found:
            raise UnlearunError(f"{flag} {key} stands there twice; write all its values behind one")
        if key in REFUSED:
            raise UnlearunError(f"{flag} {key} is not possible: {REFUSED[key]}")
        found[key] = values.strip()
    return found


def _values(key: str, text: str) -> list[str]:
    try:
        parts = split_values(text)
    except UnlearunError as error:
        raise UnlearunError(f"{key}: {error}") from error
    if not all(parts):
        raise UnlearunError(f"{key}={text} holds an empty value; expected values with commas between, as in {key}=1,2")
    values = [_unquoted(part) for part in parts]
    seen = [_number(value) for value in values]
    for at, value in enumerate(values):
        if seen[at] in seen[:at]:
            raise UnlearunError(f"{key}={text} holds {value} twice; each value needs to run once only")
    return values


def _unquoted(part: str) -> str:
    """Take off the quotes that kept a comma together: fit would take them for a part of the text."""
    return str(yaml.safe_load(part)) if part[0] in "\"'" and part[-1] == part[0] and len(part) > 1 else part


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
