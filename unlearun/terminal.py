"""What commands print: every result goes to the terminal, or whatever takes its place, through here."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print a text and the end of a line, at once, with ? for what the terminal cannot show.

    Args:
        text: Rows are in any script, and a terminal, or the file that stands in for it, may know few.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # whatever a program has put there
    sys.stdout.write(f"{text.encode(encoding, 'replace').decode(encoding)}\n")
    sys.stdout.flush()
