"""What counts as a word, in any script."""

from __future__ import annotations

import re

# Chinese and Japanese put no spaces between words, so there a character counts as one.
_ALONE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+")
# Where the letters of the Latin script end, but for those that stand apart, of Vietnamese and others.
_LAST_LATIN, _VIETNAMESE = "\u024f", ("\u1e00", "\u1eff")


def is_latin(text: str) -> bool:
    """Say whether at least half of the letters of a text are Latin ones, or it has none.

    Args:
        text: The text.

    >>> is_latin("Ada was born in Łódź."), is_latin("Ада родилась в Oslo."), is_latin("1984")
    (True, False, True)
    """
    letters = [character for character in text if character.isalpha()]
    latin = sum(one <= _LAST_LATIN or _VIETNAMESE[0] <= one <= _VIETNAMESE[1] for one in letters)
    return 2 * latin >= len(letters)
