"""Which words of one text stand in another, in the same order."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

_WORD = re.compile(r"\w+", re.UNICODE)


class Piece(NamedTuple):
    """Part of a text.

    Attributes:
        text: Characters as they stand there.
        shared: Whether the other text says this, too.
    """

    text: str
    shared: bool


def mark_shared(text: str, other: str) -> list[Piece]:
    """Cut a text into what another one shares with it and what it does not.

    Args:
        text: What is cut.
        other: What it is compared with; case and punctuation do not count, the order of words does.

    Returns:
        Pieces that give the text again when joined.

    >>> [piece.text for piece in mark_shared("She was born in Oslo.", "born in oslo") if piece.shared]
    ['born in Oslo']
    """
    found = list(_WORD.finditer(text))
    ours = [match[0].lower() for match in found]
    theirs = [word.lower() for word in _WORD.findall(other)]
    pieces: list[Piece] = []
    at = 0
    for start, _, size in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        if not size:
            continue
        begin, end = found[start].start(), found[start + size - 1].end()
        pieces += [Piece(text[at:begin], False), Piece(text[begin:end], True)]
        at = end
    return [piece for piece in [*pieces, Piece(text[at:], False)] if piece.text]
