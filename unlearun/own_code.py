"""Where classes of the user's own are found: an installed command does not look into the current folder by itself."""

from __future__ import annotations

import os
import sys


def look_here() -> None:
    """Let modules in the current folder be imported, behind all that is installed."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
