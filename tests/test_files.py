from __future__ import annotations

import errno
import os

import pytest

from unlearun.files import write_whole, written_whole


def test_what_stood_there_stays_until_the_new_text_is_whole(tmp_path):
    file = tmp_path / "new" / "a.txt"
    write_whole(file, "old")
    with pytest.raises(ZeroDivisionError), written_whole(file) as scratch:
        scratch.write_text(f"half {1 / 0}")
    assert file.read_text() == "old"
    write_whole(file, "new")
    assert [one.name for one in file.parent.iterdir()] == ["a.txt"]
    assert file.read_text() == "new"


def test_a_disk_that_cannot_keep_it_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    write_whole(file, "old")

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, "new")
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "old"
