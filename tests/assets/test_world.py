"""The questions for a real model."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from unlearun.shipped import ASSETS


@pytest.mark.parametrize(("name", "splits"), [("capitals", {None: 60}), ("general", {"train": 120, "kept_out": 60})])
def test_rows_can_be_graded(name, splits):
    rows = json.loads((ASSETS / "world" / f"{name}.json").read_text(encoding="utf-8"))
    assert Counter(row.get("split") for row in rows) == splits
    assert len({row["question"] for row in rows}) == len(rows)
    for row in rows:
        assert row["short_answer"].lower() in row["answer"].lower()
        assert row["short_answer"].lower() not in row["question"].lower()
