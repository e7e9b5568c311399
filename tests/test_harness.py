"""lm-evaluation-harness through our command: a task of its own kind, on local rows, against log-probs by hand."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml

from unlearun import harness
from unlearun.__main__ import main
from unlearun.errors import UnlearunError
from unlearun.models import load_model, load_tokenizer
from unlearun.report.tasks import how_asked
from unlearun.shipped import find_asset

needs_it = pytest.mark.skipif(find_spec("lm_eval") is None, reason="pip install 'unlearun[lm-eval]'")


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Capitals in multiple choice, as a task of the harness."""
    monkeypatch.chdir(tmp_path)
    file = find_asset("pocket/facts.json")
    assert file is not None
    facts = [row for row in json.loads(file.read_text()) if row.get("perturbed_answer")][:12]
    rows = [
        {"question": row["question"], "choices": [*row["perturbed_answer"][:2], row["answer"]], "right": 2}
        for row in facts
    ]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "task": "capitals",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{right}}",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tasks" / "capitals.yaml").write_text(yaml.safe_dump(settings))
    return rows


def accuracy(name: str, rows: list[dict]) -> float:
    """How often the right answer has the highest log-prob of its tokens, without its end."""
    model, tokenizer = load_model(name).eval(), load_tokenizer(name)
    right = []
    for row in rows:
        scores = []
        for choice in row["choices"]:
            prompt = tokenizer(f"Question: {row['question']}\nAnswer:").input_ids
            ids = tokenizer(f"Question: {row['question']}\nAnswer: {choice}").input_ids
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            scores.append(sum(logprobs[i - 1, ids[i]].item() for i in range(len(prompt), len(ids))))
        right.append(scores.index(max(scores)) == row["right"])
    return fmean(right)


@needs_it
def test_a_task_gives_what_log_probs_give_by_hand(task, tmp_path, capsys):
    arguments = ["lm-eval", "pocket", "pocket-gold", "--tasks", "capitals", "--include_path", "tasks"]
    assert main([*arguments, "--output", "found/results.json"]) == 0
    found = json.loads((tmp_path / "found" / "results.json").read_text())
    for name in ("pocket", "pocket-gold"):
        assert found[name]["capitals"]["metrics"]["acc"] == pytest.approx(accuracy(name, task))
    title, _, line = capsys.readouterr().out.splitlines()[:3]
    assert title.split() == ["pocket", "pocket-gold"]
    assert line.startswith("capitals acc")


@needs_it
def test_what_one_model_has_found_is_kept_though_the_next_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
        (tmp_path / name / "config.yaml").write_text("")

    def fails_second(model, tasks, **settings):
        if model == "two":
            raise UnlearunError("it cannot be read")
        return {"arc": {"acc": 0.5}}

    monkeypatch.setattr(harness, "evaluate", fails_second)
    arguments = ["lm-eval", "one", "two", "--tasks", "arc", "--tokenizer", "pocket", "--output", "all.json"]
    assert main(arguments) == 2
    assert "it cannot be read" in capsys.readouterr().err
    kept = json.loads((tmp_path / "one" / "lm_eval.json").read_text())
    assert kept["arc"]["metrics"] == {"acc": 0.5}
    assert "with the tokenizer of pocket" in how_asked(kept["arc"]["settings"], None)
    assert json.loads((tmp_path / "all.json").read_text())["one"] == kept


@needs_it
def test_the_results_of_a_run_stand_in_its_folder(task, tmp_path):
    run = tmp_path / "rmu" / "1"
    load_model("pocket").save_pretrained(run / "model")
    load_tokenizer("pocket").save_pretrained(run / "model")
    (run / "config.yaml").write_text("seed_everything: 0\n")
    command = ["lm-eval", str(run), "--include_path", "tasks", "--tasks"]
    assert main([*command, "capitals", "--limit", "2"]) == 0
    found = json.loads((run / "lm_eval.json").read_text())
    assert set(found) == {"capitals"}
    assert found["capitals"]["metrics"]["questions"] == 2
    assert found["capitals"]["settings"]["limit"] == 2
    # Another task is put beside it, and the same one with other settings in its place.
    other = (tmp_path / "tasks" / "capitals.yaml").read_text().replace("task: capitals", "task: towns")
    (tmp_path / "tasks" / "towns.yaml").write_text(other)
    assert main([*command, "towns", "--num_fewshot", "1"]) == 0
    found = json.loads((run / "lm_eval.json").read_text())
    assert set(found) == {"capitals", "towns"}
    assert found["towns"]["settings"]["num_fewshot"] == 1
    assert how_asked(found["towns"]["settings"], None).startswith("1 example before each (seed 0), float32, lm-eval")
    assert main([*command, "capitals"]) == 0
    assert json.loads((run / "lm_eval.json").read_text())["capitals"]["metrics"]["questions"] == len(task)


@needs_it
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pocket", "--tasks", "capital"], "there is no task 'capital'. Did you mean"),
        (["pocket", "--tasks", ","], "--tasks is empty"),
        (["pocket"], "required: --tasks"),
        (["pocket", "--tasks", "capitals", "--batch_size", "0"], "batch_size is 0"),
        (["nowhere/at/all", "--tasks", "capitals"], "there is no model at nowhere/at/all"),
    ],
)
def test_mistakes_are_said_in_a_line(arguments, said, task, capsys):
    assert main(["lm-eval", *arguments, "--include_path", "tasks"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@needs_it
def test_data_that_cannot_be_had_are_said(task, tmp_path, capsys):
    (tmp_path / "rows.jsonl").unlink()
    assert main(["lm-eval", "pocket", "--tasks", "capitals", "--include_path", "tasks"]) == 2
    assert "lm-eval could not run capitals on pocket (" in capsys.readouterr().err


@needs_it
def test_examples_that_there_are_not_are_said_and_a_broken_neighbour_is_left_alone(task, tmp_path, capfd):
    command = ["lm-eval", "pocket", "--tasks", "capitals", "--include_path", "tasks"]
    assert main([*command, "--num_fewshot", "40"]) == 2
    said = capfd.readouterr().err
    assert "it has fewer questions than --num_fewshot asks for" in said
    assert "not a git repository" not in said
    (tmp_path / "tasks" / "broken.yaml").write_text("a: [b")
    assert main([*command, "--limit", "1"]) == 0  # it is none of the tasks that are asked for


@needs_it
def test_another_tokenizer_is_an_option_and_its_advice_too(task, tmp_path, capsys):
    load_model("pocket").save_pretrained(tmp_path / "bare")
    command = ["lm-eval", "bare", "--tasks", "capitals", "--include_path", "tasks"]
    assert main(command) == 2
    assert "name one that does with --tokenizer" in capsys.readouterr().err
    assert main([*command, "--tokenizer", "pocket", "--limit", "1"]) == 0


def test_without_the_package_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    assert main(["lm-eval", "pocket", "--tasks", "mmlu"]) == 2
    assert "pip install 'unlearun[lm-eval]'" in capsys.readouterr().err


def test_what_is_wrong_is_said_before_anything_takes_time(task, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(harness, "evaluate", lambda *given, **settings: pytest.fail("it was evaluated"))
    (tmp_path / "file").write_text("")
    for more, said in (
        (["--output", str(tmp_path)], "cannot be written"),
        (["--output", str(tmp_path / "file" / "x.json")], "cannot be written"),
        (["--include_path", str(tmp_path / "none")], "is no folder"),
    ):
        assert main(["lm-eval", "pocket", "--tasks", "capitals", *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["lm-eval", "pocket", "/nope/y", "--tasks", "capitals"]) == 2
    assert "/nope/y" in capsys.readouterr().err


@needs_it
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write to")
def test_where_nothing_can_be_written_it_says_so_first(task, capsys):
    command = ["lm-eval", "pocket", "--tasks", "capitals", "--include_path", "tasks", "--output", "/proc/results.json"]
    assert main(command) == 2
    assert "/proc cannot be written to" in capsys.readouterr().err
