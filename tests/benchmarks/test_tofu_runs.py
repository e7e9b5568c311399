"""The TOFU benchmark script, with a tiny model: every run once, one that was broken off goes on, figures gather."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tofu
from conftest import make_llama, make_tokenizer
from tofu_plot import draw

TOFU = Path(__file__).resolve().parents[3] / "shared" / "data" / "tofu"
BRIEF = [
    "--data.max_eval_rows",
    "3",
    "--data.max_new_tokens",
    "4",
    "--trainer.max_steps",
    "1",
    "--data.max_length",
    "400",
]


def test_rows_are_those_of_the_authors(tmp_path):
    published = tmp_path / "published"
    published.mkdir()
    rows = [json.dumps({"question": f"{i}?", "answer": "yes"}) for i in range(4000)]
    for name, lines in {"full": rows, "retain_perturbed": rows[340:380], "real_authors_perturbed": rows[:1]}.items():
        (published / f"{name}.json").write_text("\n".join(lines))
    (published / "forget01_perturbed.json").write_text("\n".join(rows[3960:]))
    tofu.cut_rows(published, tmp_path / "cut")
    read = {file.stem: [json.loads(line)["question"] for line in file.open()] for file in (tmp_path / "cut").iterdir()}
    assert read["forget01"] == [f"{i}?" for i in range(3960, 4000)] == read["forget01_perturbed"]
    assert read["retain99"] == [f"{i}?" for i in range(360)]
    assert read["full"] == read["retain99"] + read["forget01"]
    assert read["holdout01"] == [f"{i}?" for i in range(2000, 2040)]
    assert read["retain_perturbed"] == [f"{i}?" for i in range(340, 360)]
    with pytest.raises(SystemExit, match=r"has no \w+\.json; name the folder of TOFU's files with --data"):
        tofu.cut_rows(tmp_path / "cut" / "nothing", tmp_path / "cut")


@pytest.mark.skipif(not TOFU.is_dir(), reason="the TOFU files are not beside this checkout")
def test_one_command_runs_all_and_nothing_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = make_llama()
    model.config.max_position_embeddings = 1024
    model.save_pretrained("tiny")
    make_tokenizer().save_pretrained("tiny")
    more = [*BRIEF, "--trainer.precision", "32-true", "--trainer.accelerator", "cpu"]
    command = ["tofu.py", "simnpo", "--model", "tiny", "--figures", "figures.json", "--output", "runs", "--arguments"]
    monkeypatch.setattr(sys, "argv", [*command, *more])
    tofu.main()
    first = capsys.readouterr().out
    rows = json.loads(first.splitlines()[-1])
    assert list(rows) == [tofu.TARGET, tofu.GOLD, "simnpo"]
    for name, row in rows.items():
        assert all(len(row[column]) == 3 for column in ("forget_quality", "model_utility")), name
    assert rows[tofu.TARGET]["ks_forget_quality"][0] <= 1
    assert json.loads(Path("figures.json").read_text()) == rows
    files = sorted(Path("runs").rglob("eval/*.json"))
    tofu.main()
    assert sorted(Path("runs").rglob("eval/*.json")) == files
    assert capsys.readouterr().out.splitlines()[-1] == first.splitlines()[-1]
    draw(rows, tmp_path / "tofu.png", tofu.GOLD, tofu.TARGET, tofu.from_another(rows))
    assert (tmp_path / "tofu.png").stat().st_size > 10_000


def test_a_run_that_failed_stands_in_the_table_with_its_reason(tmp_path):
    found = tofu.fit(tmp_path / "run", ["--config", "no-such-config"])
    assert "no-such-config" in found["failed"]
    assert "no-such-config" in tofu.table({"rmu": tofu.figures(found)}).splitlines()[-1]


def test_rows_that_began_from_another_target_are_marked():
    row = {"cpu_seconds": 3.0, "peak_gb": 1.0, "whole": True}
    rows = {tofu.TARGET: {**row, tofu.START: [0.9]}, "npo": {**row, "from": [0.9]}, "rmu": {**row, "from": [0.8]}}
    names = [line.split(" | ")[0] for line in tofu.table({**rows, "wga": row}).splitlines()[2:]]
    assert names == ["| `target`", "| `npo`", "| `rmu` †", "| `wga` †"]
