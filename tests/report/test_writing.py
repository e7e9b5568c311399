"""The files of a report, and what stands in those that are no page."""

from __future__ import annotations

import csv

import pytest
import yaml
from report_runs import bad_run, evaluation, good_run, make_run

from unlearun.__main__ import main
from unlearun.records.task_results import add_task_results
from unlearun.report.card import card
from unlearun.report.markdown import comparison_markdown, run_markdown
from unlearun.report.reported_run import read_runs
from unlearun.report.writing import write_report


def names(folder):
    return sorted(file.name for file in folder.glob("report.*"))


def test_the_report_of_a_run_stands_in_its_folder(tmp_path, capsys):
    folder = good_run(tmp_path / "npo" / "1")
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert names(folder) == ["report.csv", "report.html", "report.md"]


def test_that_of_several_stands_where_all_of_them_are(tmp_path):
    folders = [good_run(tmp_path / "outputs" / "npo" / "1"), bad_run(tmp_path / "outputs" / "rmu" / "1")]
    assert write_report(folders) == tmp_path / "outputs" / "report.html"
    with (tmp_path / "outputs" / "report.csv").open() as file:
        assert {row["run"] for row in csv.DictReader(file)} == {"npo/1", "rmu/1"}


def test_it_goes_where_it_is_told(tmp_path):
    folder = good_run(tmp_path / "npo" / "1")
    assert write_report([folder], tmp_path / "elsewhere") == tmp_path / "elsewhere" / "report.html"
    assert names(folder) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is no folder; expected a run folder"),
        ([], "the following arguments are required: RUN"),
        (["--html"], "required: RUN"),
    ],
)
def test_mistakes_are_said_in_a_line(arguments, said, capsys):
    assert main(["report", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_broken_records_are_said(tmp_path, capsys):
    folder = good_run(tmp_path / "npo" / "1")
    (folder / "eval" / "step=20.json").write_text('{"summary": {}')
    assert main(["report", str(folder)]) == 2
    assert "step=20.json is no JSON" in capsys.readouterr().err
    assert names(folder) == []


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_text_has_the_values_and_the_examples(tmp_path):
    (run,) = read_runs([good_run(tmp_path / "npo" / "1")])
    text = run_markdown(run)
    line = next(line for line in text.splitlines() if line.startswith("| forget/probability"))
    assert cells(line)[1].startswith(f"{run.first.summary['forget/probability']:.3f} (")
    assert cells(line)[2].startswith(f"{run.last.summary['forget/probability']:.3f} (")
    assert "| Where was author 0 born? | Author 0 was born in town 0. | Author 0 was born in town 0. |" in text
    assert "## Read this first" not in text
    assert "digest-of-forget" in text


def test_the_text_of_several_has_a_column_a_run(tmp_path):
    runs = read_runs([good_run(tmp_path / "npo" / "1"), bad_run(tmp_path / "npo" / "2", alpha=2.0)])
    text = comparison_markdown(runs)
    assert "- npo/2: Collapsed" in text
    line = next(line for line in text.splitlines() if line.startswith("| model\\_utility"))
    assert [cell.split()[0] for cell in cells(line)[2:]] == [f"{run.last.summary['model_utility']:.3f}" for run in runs]
    assert "| model.alpha | \u2013 | 2.0 |" in text


def test_the_card_has_the_hubs_front_matter_and_no_path_of_this_disk(tmp_path):
    end = evaluation(20, 0.12, 0.9, retain_reference="/home/me/gold/1")
    end.fingerprint["sets"]["forget"]["source"] = {"path": "/home/me/secret/forget.json", "split": "a"}
    end.fingerprint["sets"]["retain"]["source"] = {"path": "org/data", "split": "train"}
    (run,) = read_runs([make_run(tmp_path / "npo" / "1", evaluation(0, 0.95, 0.95), end)])
    _, front, text = card(run).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "org/tiny",
        "tags": ["unlearning", "unlearun", "npo"],
    }
    assert "# org/tiny after unlearning with NPO" in text
    assert "| forget | forget | 30 | forget.json, a |" in text
    assert "| retain | retain | 12 | org/data, train |" in text
    assert "/home" not in text
    assert str(tmp_path) not in text
    assert "## Limits" in text


def test_a_model_of_this_disk_is_no_base_model(tmp_path):
    start, end = evaluation(0, 0.9, 0.9), evaluation(20, 0.12, 0.9, model=str(tmp_path / "models" / "tiny"))
    (run,) = read_runs([make_run(tmp_path / "npo" / "1", start, end, losses=False)])
    assert "base_model" not in card(run)
    assert "# tiny after unlearning" in card(run)


def test_the_card_stands_in_the_model_folder_of_a_run_that_trained(tmp_path):
    trained, measured = good_run(tmp_path / "npo" / "1"), make_run(tmp_path / "gold" / "1", evaluation(0, 0.5, 0.5))
    for folder in (trained, measured):
        (folder / "model").mkdir()
        write_report([folder])
    assert (trained / "model" / "README.md").is_file()
    assert not (measured / "model" / "README.md").exists()


@pytest.mark.parametrize("config", ["data: 3", "data: [1]", "model: null", "optimizer: x", "1: {2: 3}"])
def test_an_odd_config_or_fingerprint_costs_no_report(config, tmp_path):
    end = evaluation(20, 0.12, 0.9, versions=["1"], cautions=None)
    folder = make_run(tmp_path / "npo" / "1", evaluation(0, 0.9, 0.9), end, losses=False)
    (folder / "config.yaml").write_text(config)
    (folder / "model").mkdir()
    assert write_report([folder]).is_file()
    other = good_run(tmp_path / "npo" / "2")
    assert write_report([folder, other], tmp_path).is_file()


def test_a_place_that_cannot_take_it_is_said_before_anything_is_written(tmp_path, capsys):
    run = good_run(tmp_path / "npo" / "1")
    (run / "model").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    for place in ("file", "file/sub", "taken", "x" * 300):
        assert main(["report", str(run), "--output", str(tmp_path / place)]) == 2
        error = capsys.readouterr().err
        assert "the report cannot be written to" in error
        assert "name another folder with --output" in error
    assert [file.name for file in (tmp_path / "taken").iterdir()] == ["report.html"]
    assert main(["report", "x" * 300]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_elsewhere_the_model_keeps_its_card(tmp_path):
    run = good_run(tmp_path / "npo" / "1")
    (run / "model").mkdir()
    (run / "model" / "README.md").write_text("mine")
    write_report([run], tmp_path / "other")
    assert (run / "model" / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/secret/forget.txt", "forget.txt"),
        ("/secret/data, mine/retain.json", "retain.json"),
        (r"C:\secret\forget.json", "forget.json"),
        ("org/rows", "org/rows"),
    ],
)
def test_the_card_names_files_without_their_places(tmp_path, source, shown):
    run = good_run(tmp_path / "npo" / "1")
    (found,) = read_runs([run])
    found.last.fingerprint["sets"]["forget"]["source"] = source
    text = card(found)
    assert f"| {shown} |" in text
    assert "secret" not in text


def test_the_card_of_a_pinned_model_says_which_revision_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (found,) = read_runs([good_run(tmp_path / "npo" / "1")])
    found.last.fingerprint["model"] = "acme/tiny@v1"
    assert "base_model: acme/tiny\n" in card(found)
    assert "# acme/tiny@v1 after unlearning" in card(found)
    (tmp_path / "acme" / "tiny@v1").mkdir(parents=True)
    assert "base_model" not in card(found)


def test_the_card_names_no_place_of_a_tokenizer(tmp_path):
    run = good_run(tmp_path / "npo" / "1")
    settings = {"dtype": "float32", "tokenizer": "/home/me/words"}
    add_task_results(run, {"arc": {"metrics": {"acc": 0.5}, "settings": settings}})
    (found,) = read_runs([run])
    assert "with the tokenizer of words" in card(found)
    assert "/home" not in card(found)
