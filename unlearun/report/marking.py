"""Which words of one text stand in another, in the same order."""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import islice
from typing import NamedTuple

from unlearun.words import WORD

# Words beyond are not compared: what repeats itself takes the square of its length, and more.
MOST_WORDS = 400


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
        other: What it is compared with; case and punctuation do not count, the order of words does. Of either the
            first 400 words are looked at.

    Returns:
        Pieces that give the text again when joined.

    >>> [piece.text for piece in mark_shared("She was born in Oslo.", "born in oslo") if piece.shared]
    ['born in Oslo']
    """
    found = list(islice(WORD.finditer(text), MOST_WORDS))
    ours = [match[0].lower() for match in found]
    theirs = [match[0].lower() for match in islice(WORD.finditer(other), MOST_WORDS)]
    pieces: list[Piece] = []
    at = 0
    for start, _, size in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        if not size:
            continue
        begin, end = found[start].start(), found[start + size - 1].end()
        pieces += [Piece(text[at:begin], False), Piece(text[begin:end], True)]
        at = end
    return [piece for piece in [*pieces, Piece(text[at:], False)] if piece.text]
