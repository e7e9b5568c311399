"""Whether values that came through Python are of the kind that a constructor says, as the command line checks its."""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from unlearun.errors import UnlearunError

PLAIN = (bool, int, float, str, list, tuple, dict, set, types.NoneType)


def check_kinds(owner: type, arguments: Mapping[str, Any]) -> None:
    """Check the kinds of plain values; what objects are good for, their user knows.

    Args:
        owner: The class whose constructor takes them.
        arguments: By name.

    Raises:
        UnlearunError: All that are of another kind.
    """
    hints = constructor_hints(owner)
    problems = [
        f"{name} is {value!r:.60}; expected {describe(hints[name])}"
        for name, value in arguments.items()
        if name in hints and not fits(value, hints[name])
    ]
    if problems:
        raise UnlearunError(f"{owner.__name__}: {'; '.join(problems)}")


def constructor_hints(owner: type) -> dict[str, Any]:
    """Return the types of all arguments of a constructor and those of its bases, as far as they can be resolved.

    Args:
        owner: A class.
    """
    hints: dict[str, Any] = {}
    for cls in owner.__mro__:
        if "__init__" in vars(cls):
            try:
                found = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
            except (NameError, TypeError):  # names that exist for type checkers alone
                continue
            hints = {**found, **hints}
    return hints


def fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 - any value and any type
    """Say whether a value is of a type, as far as it is plain and the type is.

    >>> fits(3, int | None), fits("3", int | None), fits(3, float), fits(["a"], int | list[int] | None)
    (True, False, True, False)
    """
    if not isinstance(value, PLAIN) or hint is Any:
        return True
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if hint is types.NoneType or hint is None:
        return value is None
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    container = origin if isinstance(origin, type) else hint
    if container is dict:
        return isinstance(value, dict) and (len(inner) < 2 or all(fits(one, inner[1]) for one in value.values()))
    if container in (list, Sequence, Collection):
        return isinstance(value, (list, tuple)) and all(fits(one, inner[0]) for one in value if inner)
    return True


def describe(hint: Any) -> str:  # noqa: ANN401 - any type
    """Name a type for people.

    >>> from typing import Literal
    >>> describe(int | list[int] | None), describe(Literal["NLL", "KL"])
    ('int, list of int or None', "'NLL' or 'KL'")
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType, typing.Literal):
        names = [repr(one) if origin is typing.Literal else describe(one) for one in inner]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    if hint is types.NoneType:
        return "None"
    if origin is dict:
        return "a mapping"
    if origin is not None and inner:
        return f"list of {describe(inner[0])}"
    return getattr(hint, "__name__", str(hint))
