"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write a text file under another name first, so that nobody ever sees half of it.

    Args:
        file: Where to; its folder is made when it does not exist.
        text: What to write, as UTF-8.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, whose files none but their owner may read.
    scratch = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
