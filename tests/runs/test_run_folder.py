from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from unlearun.errors import UnlearunError
from unlearun.runs import RunFolder


def test_every_run_gets_a_new_number(tmp_path):
    (tmp_path / "rmu" / "7").mkdir(parents=True)
    (tmp_path / "rmu" / "notes").mkdir()
    assert [RunFolder(tmp_path, "rmu").path.name for _ in range(3)] == ["8", "9", "10"]


def test_runs_that_start_at_the_same_moment_share_no_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: RunFolder(tmp_path, "rmu").path.name, range(40)))
    assert len(set(numbers)) == 40


def test_a_place_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnlearunError, match="--output_dir"):
        _ = RunFolder(tmp_path / "file", "rmu").path
