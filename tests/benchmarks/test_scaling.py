"""scaling.py does what it says, and notices what is too much; the figures themselves take it a few minutes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import scaling
import torch
from processes import alone
from scaling import BARS, BEGIN, END, README, missed_bars, table
from scaling_steps import Shape, Work, train

from unlearun.data import collate

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")


def test_rows_are_prepared_and_found_again(tmp_path, monkeypatch, capsys):
    """8,000 rows have over two million characters, which are kept on disk."""
    picture = tmp_path / "scaling.png"
    command = ["scaling.py", "rows", "--rows", "8000", "--model", "pocket", "--plot", str(picture)]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(scaling, "alone", alone)  # in a process that need not import all first
    with pytest.raises(SystemExit, match="0"):
        scaling.main()
    said = capsys.readouterr().out
    (found,) = json.loads(said.splitlines()[-1])["rows"]
    assert found["rows"] == 8000
    assert found["tokens"] > 8000 * 40
    assert found["kept"]
    assert 0 < found["again_seconds"] < found["seconds"]
    assert 0 < found["peak_gb"] < 0.5
    assert found["epochs_gb"] < 0.05
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_100000_rows_may_take_is_checked():
    fine = {"rows": 100_000, **{name: bar / 2 for name, bar in BARS.items()}}
    assert missed_bars([{**fine, "rows": 10_000, "seconds": 1e9}, fine]) == []
    for name, bar in BARS.items():
        (line,) = missed_bars([{**fine, name: bar}])
        assert name in line
    assert missed_bars([{**fine, "seconds": float("nan")}])


def test_the_table_is_the_one_in_readme():
    rows = [{"rows": size, "seconds": size / 4e3, "again_seconds": 0.5, "peak_gb": 0.125} for size in (1000, 4000)]
    models = [{"parameters": 134_515_008, "seconds": 12.3, "peak_gb": 3.0}]
    made = table({"rows": rows, "models": models}).splitlines()
    assert made[2:] == [
        "| preparing | 1,000, 4,000 rows | 0.25, 1 | 0.12, 0.12 |",
        "| the next start | 1,000, 4,000 rows | 0.5, 0.5 |  |",
        "| a step | 135 million parameters | 12 | 3.00 |",
    ]
    written = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].splitlines()
    assert written[:2] == made[:2]
    assert len(written) == 2 + 5


def test_a_model_is_trained_on_answers_of_the_length_asked_for(monkeypatch):
    lengths = []

    def seen(rows, *more):
        lengths.extend(row.labelled for row in rows)
        return collate(rows, *more)

    monkeypatch.setattr("unlearun.data.sampler.collate", seen)
    threads = torch.get_num_threads()
    try:
        found = train(Work(Shape(50, 16, 32, 1, 2, 1), answer=7, rows=2, steps=3))
    finally:
        torch.set_num_threads(threads)
    assert set(lengths) == {7}
    assert len(lengths) >= 3 * 2 * 2
    # Tied embeddings, four projections of attention (half as wide for keys and values), three of the MLP, three norms.
    assert found["parameters"] == 50 * 16 + 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32 + 3 * 16
    assert found["seconds"] > 0
