"""Every notebook runs from top to bottom, and shows what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook_runs(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{file.name}[{number}]", "exec"), names)
    if file.stem == "write_a_method":
        assert names["status"] == 0
        first, last = (json.loads(Path(f"outputs/mywga/1/eval/step={step}.json").read_text()) for step in (0, 50))
        assert last["summary"]["forget/probability"] < 0.25 * first["summary"]["forget/probability"]
        assert last["summary"]["retain/probability"] > 0.9 * first["summary"]["retain/probability"]
    if file.stem == "quickstart":
        assert names["after"]["probability"] < 0.2 * names["before"]["probability"]
        assert names["after"]["retain/probability"] > 0.9 * names["before"]["retain/probability"]
