"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unlearun.errors import UnlearunError


def exists(file: Path) -> bool:
    """Say whether there is a file of a name, be it one that no file can have.

    Args:
        file: Where it would be.
    """
    try:
        return file.is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Give a name to write under; once that is done, what stands there is on the disk and takes the file's place.

    Nobody ever sees half of it, after a kill or a power cut either.

    Args:
        file: Where to; its folder is made when it does not exist.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, whose files none but their owner may read.
    scratch = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        yield scratch
        _to_disk(scratch)
        os.replace(scratch, file)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # a folder cannot be opened on some systems
        _to_disk(file.parent)


def write_whole(file: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Args:
        file: Where to; its folder is made when it does not exist.
        text: What to write, as UTF-8.
    """
    with written_whole(file) as scratch:
        scratch.write_text(text, encoding="utf-8")


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: Path) -> None:
    """Check, before anything takes time, that files can be written into a folder, which is made if need be.

    Args:
        folder: Where they will go.

    Raises:
        UnlearunError: They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UnlearunError(f"{folder} cannot be written to: {error.strerror}") from error
