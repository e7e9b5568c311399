"""What a file may hold that nobody meant it to: bytes, JSON of any kind, and files that were right before."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from hypothesis import strategies as st

# What parsers stumble over.
SPLINTERS = [
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"\n", b"\\", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80"),
    *(b"NaN", b"-Infinity", b"1e999", b"-1e-999", b"null", b"true", b"9" * 5000, b"0" * 50, b'"\\ud800"', b"\\u12"),
    *(b"[" * 2000, b'{"a":' * 2000, b"[" * 100_000, b" " * 5000, b"\x80" * 9, b"\xe2\x80\xa8"),
]

huge = st.sampled_from([10**400, -(10**400), 2**63, 2**64, -1, 0, 10**4000])
texts = st.text(st.characters(categories=["L", "N", "P", "Zs", "Cc", "Cs"]), max_size=12)
scalars = st.none() | st.booleans() | huge | st.integers() | st.floats() | texts
deep = st.integers(1, 150).map(lambda levels: nested(levels))
values = st.recursive(
    scalars | deep, lambda some: st.lists(some, max_size=4) | st.dictionaries(texts, some, max_size=4), max_leaves=12
)


def nested(levels: int) -> Any:
    value: Any = 0
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def encoded(value: Any, ascii_only: bool = True) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """A file that was whole: bits turned over, parts lost, said twice, or with something else between."""
    content = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.integers(1, 40)))
        match draw(st.sampled_from(["bit", "lose", "repeat", "splinter", "cut", "byte"])):
            case "bit" if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if at < len(content):
                content[at] = draw(st.integers(0, 255))
            case "lose":
                del content[at:end]
            case "repeat":
                content[at:at] = content[at:end] * draw(st.integers(1, 20))
            case "splinter":
                content[at:at] = draw(st.sampled_from(SPLINTERS))
            case "cut" if draw(st.booleans()):
                del content[at:]
    return bytes(content)


@st.composite
def replaced(draw: st.DrawFn, whole: st.SearchStrategy[Any], names: list[str]) -> Any:
    """A JSON value with something else in some of its places, or under another name."""
    stored = json.loads(json.dumps(draw(whole)))
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(stored))
        if not places:
            return draw(values)
        within, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["value", "value", "name", "gone", "twice"]))
        if kind == "gone":
            del within[key]
        elif kind == "name" and isinstance(within, dict):
            within[draw(st.sampled_from(names) | texts)] = within.pop(key)
        elif kind == "twice" and isinstance(within, list):
            within.append(within[key])
        else:
            within[key] = draw(values)
    return stored


def _places(value: Any) -> Any:
    """Yield every container with every key in it."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)) and inner:
            yield from _places(inner)


def files(wholes: list[Any], names: list[str], lines: bool = False) -> st.SearchStrategy[bytes]:
    """Files that should be JSON like one of these.

    Args:
        wholes: JSON values that are right.
        names: Keys that mean something.
        lines: Whether one value a line will do, too.
    """
    whole = st.sampled_from(wholes)
    ways = st.booleans()
    typed = st.tuples(replaced(whole, names), ways).map(lambda made: encoded(*made))
    broken = mutated(whole.map(encoded) | typed)
    found = st.binary(max_size=300) | st.tuples(values, ways).map(lambda made: encoded(*made)) | typed | broken
    if not lines:
        return found
    some = st.lists(replaced(whole, names) | values, min_size=1, max_size=4)
    each = some.map(lambda rows: b"\n".join(encoded(row) for row in rows))
    return found | each | mutated(each)


@st.composite
def zipped(draw: st.DrawFn, whole: bytes) -> bytes:
    """A checkpoint whose pickle is broken inside a zip file that is whole."""
    with zipfile.ZipFile(io.BytesIO(whole)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    (pickle,) = (name for name in members if name.endswith("data.pkl"))
    members[pickle] = draw(mutated(st.just(members[pickle])))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        for name, content in members.items():
            if draw(st.integers(0, 9)):
                target.writestr(name, content)
    return made.getvalue()
