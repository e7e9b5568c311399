"""The error that a user can mend, and the end that a scheduler wants."""

from __future__ import annotations

import difflib
import reprlib
import signal
from collections.abc import Iterable, Sequence

SHOWN = 10


class UnlearunError(Exception):
    """A mistake in input or setting; the message says what was found, what was expected and what to do.

    Attributes:
        status: With what the command exits.
    """

    status = 2


class Terminated(SystemExit):
    """The process ends with 143, as one does that SIGTERM has ended."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


def closest(word: str, candidates: Iterable[str]) -> str:
    """Return a hint that names the candidate nearest to a misspelt word.

    Args:
        word: What the user wrote.
        candidates: What would have been right.

    Returns:
        ``" Did you mean 'x'?"``, or an empty string when nothing is near.

    >>> closest("steering_coef", ["steering_coeff", "gamma"])
    " Did you mean 'steering_coeff'?"
    >>> closest("zzz", ["gamma"])
    ''
    """
    names = list(candidates)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not near:  # capitals are a slip of their own: "rmu" for "RMU"
        lowered = {name.lower(): name for name in names}
        near = [lowered[match] for match in difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)]
    return f" Did you mean {near[0]!r}?" if near else ""


def all_at_once(problems: list[str], where: str) -> UnlearunError:
    """Make one error of all problems of a source: the first ten, and a count of the rest.

    Args:
        problems: One sentence a problem.
        where: The source that has them.

    Returns:
        The error, ready to be raised.
    """
    lines = [f"{where}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    lines += [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    return UnlearunError("\n".join(lines))


def check_bounds(**bounds: tuple[float | None, float]) -> None:
    """Check that numbers are finite and not below a least value.

    Args:
        bounds: For each name, the value, None being fine, and the least it may be.

    Raises:
        UnlearunError: All that are out of range.
    """
    problems = [
        f"{name} is {value!r}; it must be a number of at least {least:g}"
        for name, (value, least) in bounds.items()
        if value is not None and not (isinstance(value, (int, float)) and least <= value < float("inf"))
    ]
    if problems:
        raise UnlearunError("; ".join(problems))


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Check that a setting is one of those there are.

    Args:
        name: What the setting is called.
        value: What the user chose.
        choices: What there is.

    Raises:
        UnlearunError: It is none of them.
    """
    if value not in choices:
        hint = closest(str(value), choices)
        raise UnlearunError(f"{name} is {value!r}; it must be one of {', '.join(choices)}.{hint}")


def shown(value: object, width: int = 40) -> str:
    """Return the beginning of a value's repr, however large or deeply nested it is.

    Args:
        value: Anything that a file may hold.
        width: At most so many characters.

    >>> shown("a" * 100, 10), shown([[[[[[[[1]]]]]]]])
    ("'aaaaaa...", '[[[[[[...]]]]]]')
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 4 * width
    text = short.repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."
