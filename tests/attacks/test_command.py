"""``unlearun attack``: the table, the files, what is not done twice, and mistakes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from unlearun import attack
from unlearun.__main__ import main
from unlearun.attacks import Attack, Outcome, read_victim
from unlearun.attacks.configs import read_attack, shipped_attacks
from unlearun.errors import UnlearunError
from unlearun.models.loading import locate
from unlearun.records import Evaluation, Standing


class Nothing(Attack):
    """An attack of a user's own that measures the model as it is.

    Args:
        times: How often.
    """

    ran = 0
    skips: ClassVar[dict[str, str]] = {}

    def __init__(self, times: int = 1) -> None:
        self.times = times

    def run(self, victim) -> Outcome:
        type(self).ran += 1
        found = {f"{self.times} times": victim.unlearned}
        return Outcome(found, figures={"times": self.times}, skipped=dict(self.skips))


@pytest.fixture
def nothing(tmp_path):
    file = tmp_path / "nothing.yaml"
    file.write_text(yaml.safe_dump({"class_path": f"{__name__}.Nothing", "init_args": {"times": 2}}))
    Nothing.ran = 0
    return file


def test_it_prints_the_table_and_leaves_all_in_the_run(run, capsys):
    assert main(["attack", str(run), "--attacks", "jailbreak", "--gold", "pocket-gold"]) == 0
    said = capsys.readouterr()
    assert said.out.split()[:6] == ["Mem", "Priv", "Util", "Agg", "robust", "jailbreak"]
    for part in ("npo/1: no attack brought anything back", "jailbreak, beginning with", f"report: {run}"):
        assert part in said.out
    standing = Standing.read(run / "attacks" / "summary.json")
    assert f"step={standing.step}.json" == max(file.name for file in (run / "eval").iterdir())
    assert standing.method == "NPO"
    # The run's model is the retain model itself: whatever comes back comes back of both, and Priv is whole.
    assert standing.score.privacy == 1
    assert [one.main for one in standing.tried] == [one.main for one in standing.gold.tried]
    page = (run / "report.html").read_text()
    assert "Is it really gone?" in page
    assert "## Is it really gone?" in (run / "report.md").read_text()
    assert (run / "attacks" / "jailbreak.json").is_file()
    assert "GPU available" not in said.err
    for noise in ("runs what rows begin with", "are all forget sets"):
        assert noise not in said.err


def test_an_attack_of_ones_own_is_carried_out_once_until_something_changes(run, nothing, capsys):
    command = ["attack", str(run), "--attacks", str(nothing), "--json"]
    assert main(command) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert model["tried"][0]["variant"] == "2 times"
    assert model["tried"][0]["main"]["share"] == 0
    assert model["figures"] == {"nothing": {"times": 2}}
    assert model["gold"] is None
    assert model["score"]["aggregate"] is None
    assert Nothing.ran == 1
    assert main(command) == 0
    assert Nothing.ran == 1
    assert main([*command, "--again"]) == 0
    assert Nothing.ran == 2
    nothing.write_text(nothing.read_text().replace("2", "3"))
    assert main(command) == 0
    assert Nothing.ran == 3
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "seed_everything": 7}))
    assert main(command) == 0
    assert Nothing.ran == 4
    (run / "attacks" / "nothing.json").write_text("{")
    assert main(command) == 0
    assert Nothing.ran == 5


def test_what_was_found_before_is_kept_as_long_as_it_is_of_the_same_model(run, nothing):
    found = attack([run], ["jailbreak"])
    assert {one.attack for one in found[0].tried} == {"jailbreak"}
    found = attack([run], [str(nothing)])
    assert {one.attack for one in found[0].tried} == {"jailbreak", "nothing"}
    assert {one.attack for one in Standing.read(run / "attacks" / "summary.json").tried} == {"jailbreak", "nothing"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "seed_everything": 7}))
    found = attack([run], [str(nothing)])
    assert {one.attack for one in found[0].tried} == {"nothing"}


def test_several_runs_are_compared_and_the_retain_model_is_attacked_once(run, nothing, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "npo" / "2")
    command = ["attack", str(run), str(other), "--attacks", str(nothing), "--gold", "pocket-gold"]
    assert main([*command, "--output", str(tmp_path / "all")]) == 0
    assert Nothing.ran == 3
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert [line.split("  ")[0] for line in lines[2:5]] == ["npo/1", "npo/2", "retain model"]
    assert f"report: {tmp_path / 'all' / 'report.html'}" in said
    assert "Is it really gone?" in (tmp_path / "all" / "report.html").read_text()
    assert (run / "report.html").is_file()
    assert (other / "report.html").is_file()


def test_the_retain_reference_of_a_run_names_the_yardstick(run, nothing, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["retain_reference"] = str(run)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["attack", str(run), "--attacks", str(nothing), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["gold"]["method"] == str(run)


@pytest.mark.parametrize("name", shipped_attacks())
def test_every_shipped_attack_can_be_made(name):
    title, attack, config = read_attack(name)
    assert title == name
    assert isinstance(attack, Attack)
    assert config["class_path"].startswith("unlearun.attacks.")


def test_records_of_other_rows_are_no_start(run, capsys):
    file = run.parents[1] / "other.json"
    config = yaml.safe_load((run / "config.yaml").read_text())
    rows = json.loads(Path(config["data"]["forget"]).read_text())
    file.write_text(json.dumps(rows[:6]))
    config["data"]["forget"] = str(file)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    victim = read_victim(run)
    assert victim.start is None
    assert len(victim.unlearned.examples["forget"]) == 6


def test_a_run_that_began_unmeasured_begins_where_the_run_before_has_ended(run, tmp_path):
    before = tmp_path / "finetune" / "1"
    (before / "eval").mkdir(parents=True)
    (run / "eval" / "step=0.json").rename(before / "eval" / "step=9.json")
    (before / "model").mkdir()
    assert read_victim(run).start is None
    config = yaml.safe_load((run / "config.yaml").read_text())
    for model in (before / "model", before):
        config["model"]["init_args"]["model"] = str(model)
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        assert read_victim(run).start.summary["forget/extraction_strength"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--attacks", "relearnt"], "there is no attack 'relearnt', nor a file of this name. Did you mean 'relearn'"),
        (["--gold", "./none"], "there is no model at ./none"),
        (["--attacks", "sample", "sample"], "two attacks are called 'sample'"),
        (["--precision", "33-true"], "33-true"),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_mistakes_are_explained(run, arguments, said, capsys):
    assert main(["attack", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (run / "attacks").exists()


def test_folders_that_are_no_ended_run_are_explained(run, tmp_path, capsys):
    shutil.rmtree(run / "model")
    for folder, said in (
        (run, "has no weights in model/"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "has no config.yaml"),
        (run / "config.yaml", "is no folder"),
    ):
        assert main(["attack", str(folder)]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "attack takes the folder of a run that has ended" in error


def test_a_run_is_named_once_and_has_files(run, capsys):
    assert main(["attack", str(run), f"{run}/../1"]) == 2
    assert "is named twice; name each run once" in capsys.readouterr().err
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["forget"] = "<object Dataset>"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["attack", str(run)]) == 2
    assert "its config.yaml names no files of data" in capsys.readouterr().err
    config["data"] = {"retain": str(run.parents[1] / "retain.json"), "speed": 3}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["attack", str(run)]) == 2
    assert "speed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class_path: Relearn\ninit_args: {share: 2}", "share is 2"),
        ("class_path: Relearn\ninit_args: {shares: 1}", "shares"),
        ("class_path: Relearns", "Did you mean 'Relearn'"),
        ("class_path: Relearn\ninit_args: {rows: [forgot]}", "forgot"),
        ("class: Relearn", "has a key 'class'; an attack is a class_path"),
        ("{}", "names no class_path"),
        ("class_path: 5", "names no class_path"),
        ("class_path: Relearn\ninit_args: 5", "init_args is 5; expected arguments by name"),
        ("class_path: Relearn\ninit_args: {learnig_rate: 1}", "Did you mean 'learning_rate'"),
        ("class_path: Relearn\ninit_args: {epochs: 1.5}", "epochs is 1.5; expected int"),
        ("class_path: Jailbreak\ninit_args: {prefixes: Sure}", "prefixes is 'Sure'; expected list of str"),
        ("class_path: [", "broken YAML"),
    ],
)
def test_a_wrong_config_is_explained(tmp_path, text, said):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UnlearunError) as error:
        read_attack(str(file))
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert len(str(error.value)) < 600


def test_ctrl_c_ends_it_and_another_call_goes_on(run, nothing, capsys, monkeypatch):
    """Lightning makes a SystemExit of it; what was found before stays."""
    assert main(["attack", str(run), "--attacks", str(nothing)]) == 0

    def interrupted(self, victim):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 - as Lightning does

    monkeypatch.setattr("unlearun.attacks.jailbreak.Jailbreak.run", interrupted)
    assert main(["attack", str(run), "--attacks", str(nothing), "jailbreak"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert Nothing.ran == 1
    assert not (run / "attacks" / "jailbreak.json").exists()


def test_sigterm_ends_it_at_once(run, nothing, monkeypatch):
    """Though Lightning, left alone, would note it and go on."""

    def told(self, victim):
        os.kill(os.getpid(), signal.SIGTERM)
        return victim.unlearned

    monkeypatch.setattr(Nothing, "run", told)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        main(["attack", str(run), "--attacks", str(nothing)])
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_weights_that_are_not_those_that_were_measured_are_measured_anew(run, nothing, capsys):
    """The run's model is replaced by the one before unlearning, which knows everything."""
    for file in Path(locate("pocket")[0]).glob("*.safetensors"):
        shutil.copy(file, run / "model")
    (standing,) = attack(str(run), str(nothing))
    assert standing.tried[0].main.unlearned > 0.9
    assert math.isnan(standing.robustness)


def test_an_evaluation_in_between_is_not_that_of_the_end(run):
    """A run whose last evaluation is gone leaves one of few metrics, and without intervals."""
    found = Evaluation.read(run / "eval" / "step=5.json")
    (run / "eval" / "step=5.json").unlink()
    found.step, found.intervals = 3, {}
    for row in found.examples["forget"].values():
        row["extraction_strength"] = 0.5
    found.write(run / "eval" / "step=3.json")
    (run / "eval" / "step=5 (copy).json").write_text("{}")
    assert read_victim(run).unlearned.summary["forget/extraction_strength"] < 0.2


def test_rows_that_an_attack_reads_are_noticed_when_they_change(run, tmp_path):
    rows = tmp_path / "unrelated.json"
    rows.write_text(json.dumps([{"question": "Who?", "answer": "Nobody at all."}]))
    mine = tmp_path / "mine.yaml"
    settings = {"rows": ["unrelated"], "unrelated": str(rows), "metrics": ["extraction_strength", "probability"]}
    mine.write_text(yaml.safe_dump({"class_path": "Relearn", "init_args": settings}))
    attack([run], [str(mine)])
    first = (run / "attacks" / "mine.json").read_text()
    attack([run], [str(mine)])
    assert (run / "attacks" / "mine.json").read_text() == first
    rows.write_text(json.dumps([{"question": "Who else?", "answer": "Somebody."}]))
    attack([run], [str(mine)])
    assert (run / "attacks" / "mine.json").read_text() != first
    rows.unlink()
    with pytest.raises(UnlearunError, match="unrelated: there is no file"):
        attack([run], [str(mine)])


def test_questions_in_other_words_that_were_added_since_are_asked(run):
    """They change no row that is evaluated, and no key that the library reads."""
    mine = run.parents[1] / "mine.yaml"
    mine.write_text(
        yaml.safe_dump({"class_path": "Reword", "init_args": {"shots": 0, "templates": ["So: {question}"]}})
    )
    assert {one.variant for one in attack([run], mine)[0].tried} == {"in the words 'So: {question}'"}
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]
    rows = json.loads(Path(data["forget"]).read_text())
    own = run.parents[1] / "rows.json"
    own.write_text(json.dumps([{**row, "paraphrased_question": f"Say: {row['question']}"} for row in rows]))
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "data": {**data, "forget": str(own)}}))
    assert {one.variant for one in attack([run], mine)[0].tried} == {"its paraphrased_question"}


def test_what_a_package_was_missing_for_is_tried_once_it_is_there(run, nothing, monkeypatch):
    """What is not installed is no property of a model."""
    lacking = {"2 times": "needs the package nothing-of-the-kind; pip install 'unlearun[nothing]'"}
    monkeypatch.setattr(Nothing, "skips", lacking)
    attack([run], nothing)
    attack([run], nothing)
    assert Nothing.ran == 1
    lacking["2 times"] = "needs the package pytest; pip install 'unlearun[nothing]'"
    file = run / "attacks" / "nothing.json"
    file.write_text(file.read_text().replace("nothing-of-the-kind", "pytest"))
    attack([run], nothing)
    assert Nothing.ran == 2


def test_what_does_not_count_any_more_is_named(run, nothing, caplog):
    attack([run], "jailbreak")
    shutil.copy(run / "attacks" / "jailbreak.json", run / "attacks" / "backup.json")
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "seed_everything": 7}))
    (standing,) = attack([run], nothing)
    assert {one.attack for one in standing.tried} == {"nothing"}
    assert "what jailbreak had found does not count any more" in caplog.text
    assert "backup" not in caplog.text


def test_a_retain_reference_that_is_gone_is_left_out_and_said(run, caplog, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"class_path": "Relearn", "init_args": {"rows": ["forget"]}}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["retain_reference"] = str(tmp_path / "gone" / "1")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (standing,) = attack([run], mine)
    assert standing.tried
    assert "is not there any more, and is left out" in caplog.text


def test_a_fit_without_its_model_is_no_yardstick(run, nothing, tmp_path, capsys):
    """Its config names the model that it began with, which knows everything."""
    gold = Path(shutil.copytree(run, tmp_path / "retrained" / "1"))
    shutil.rmtree(gold / "model")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["retain_reference"] = str(gold / "eval" / "step=5.json")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (standing,) = attack([run], nothing)
    assert standing.gold is None
    assert standing.score.privacy == 1  # by its records
    assert main(["attack", str(run), "--gold", str(gold)]) == 2
    assert f"--gold: the folder {gold} holds no" in capsys.readouterr().err


def test_a_run_is_not_its_own_yardstick_and_one_without_weights_none(run, tmp_path, capsys):
    for gold in (run, run / "model"):
        assert main(["attack", str(run), "--gold", str(gold)]) == 2
        assert "is a run that is attacked itself" in capsys.readouterr().err
    other = Path(shutil.copytree(run, tmp_path / "retrained" / "1"))
    (other / "model" / "model.safetensors").unlink()
    assert main(["attack", str(run), "--gold", str(other)]) == 2
    assert f"--gold: {other} has no weights" in capsys.readouterr().err
    assert not (run / "attacks").exists()


def test_a_run_whose_report_could_not_be_written_is_not_attacked(run, nothing, capsys):
    (run / "eval" / "step=3.json").write_text("{")
    assert main(["attack", str(run), "--attacks", str(nothing)]) == 2
    assert "step=3.json is no JSON" in capsys.readouterr().err
    assert Nothing.ran == 0


def test_rows_that_are_missing_are_told_before_anything_takes_time(run, nothing, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"class_path": "Relearn", "init_args": {"unrelated": "./none.json"}}))
    with pytest.raises(UnlearunError, match="unrelated: there is no file"):
        attack([run], [nothing, mine])
    assert Nothing.ran == 0


def test_an_attack_of_ones_own_is_found_where_one_is(run, tmp_path, monkeypatch):
    (tmp_path / "own_attack_here.py").write_text(
        "from unlearun.attacks import Attack, Outcome\n\n\n"
        "class Own(Attack):\n    def run(self, victim):\n        return Outcome(skipped={'all': 'as it is'})\n"
    )
    (tmp_path / "own.yaml").write_text("class_path: own_attack_here.Own")
    (tmp_path / "no.yaml").write_text("class_path: own_attack_here.Other")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    (standing,) = attack(run, "own.yaml")
    assert standing.skipped == {"own, all": "as it is"}
    with pytest.raises(UnlearunError, match=r"own_attack_here.Other cannot be made: .* has no attribute 'Other'"):
        attack(run, "no.yaml")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "has returned None; expected an unlearun.attacks.Outcome"),
        (Outcome({"somehow": 3}), "has found 3 as 'somehow'; expected an Evaluation with a set 'forget'"),
        (Outcome({"somehow": Evaluation(1)}), "expected an Evaluation with a set 'forget'"),
        (Outcome(figures={"lens": {1}}), "has figures that are no plain values"),
    ],
)
def test_what_an_attack_of_ones_own_must_have_found_is_said(run, nothing, monkeypatch, found, said):
    monkeypatch.setattr(Nothing, "run", lambda self, victim: found)
    with pytest.raises(UnlearunError, match=said):
        attack(run, nothing)
    assert not (run / "attacks" / "nothing.json").exists()


def test_figures_that_are_no_numbers_are_left_out_of_reports(run, nothing, monkeypatch):
    monkeypatch.setattr(Nothing, "run", lambda self, victim: Outcome(figures={"lens": ["high"], "probe": [0.5, None]}))
    assert main(["attack", str(run), "--attacks", str(nothing)]) == 0
    page = (run / "report.md").read_text()
    assert "an accuracy of at most 0.50 at layer 0" in page
    assert "mean probability of at most" not in page


@pytest.mark.parametrize("wrong", [{"runs": None}, {"runs": 3}, {"attacks": 3}, {"attacks": [3]}])
def test_python_is_told_what_was_expected(run, wrong):
    with pytest.raises(UnlearunError, match="expected a name or a path, or a list of them"):
        attack(**{"runs": [run], **wrong})
    for arguments in ({"runs": "a" * 3000}, {"runs": run, "attacks": "a" * 5000}):
        with pytest.raises(UnlearunError):
            attack(**arguments)


def test_a_relearning_that_breaks_the_model_brought_nothing_to_light(run, tmp_path):
    mine = tmp_path / "mine.yaml"
    settings = {"rows": ["forget"], "learning_rate": 1e30, "epochs": 3}
    mine.write_text(yaml.safe_dump({"class_path": "Relearn", "init_args": settings}))
    (standing,) = attack([run], [str(mine)])
    assert not standing.tried
    assert "lower learning_rate" in standing.skipped["mine, on 0.0833 of the forget rows"]  # one of twelve


def test_a_retain_reference_that_was_only_measured_names_its_model(run, nothing, tmp_path):
    """As `unlearun validate MODEL` leaves it: records and a config, no model of its own."""
    kept = tmp_path / "unlearningmethod" / "1"
    (kept / "eval").mkdir(parents=True)
    shutil.copy(run / "eval" / "step=5.json", kept / "eval" / "step=0.json")
    (kept / "config.yaml").write_text(
        yaml.safe_dump({"model": {"init_args": {"model": "pocket-gold"}}, "verbose": False})
    )
    config = yaml.safe_load((run / "config.yaml").read_text())
    for reference in (kept, kept / "eval" / "step=0.json"):
        config["data"]["retain_reference"] = str(reference)
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (standing,) = attack([run], [str(nothing)])
        assert standing.gold.method == "pocket-gold"
    (kept / "config.yaml").unlink()  # without a model its records still say how private it is
    (standing,) = attack([run], [str(nothing)])
    assert standing.gold is None
    assert standing.score.privacy == 1


def test_what_attacks_that_look_have_found_is_printed(run, capsys):
    assert main(["attack", str(run), "--attacks", "look_inside", "--gold", "pocket-gold"]) == 0
    said = capsys.readouterr().out
    assert "the answers read through the final norm and the head have a mean probability of at most 0." in said
    assert "; of the retain model, 0." in said
    assert "the answers read through the final norm" in (run / "report.md").read_text()


@pytest.mark.parametrize("name", ["summary", "unattacked"])
def test_an_attack_is_not_called_as_a_file_of_the_run(tmp_path, name):
    file = tmp_path / f"{name}.yaml"
    file.write_text("class_path: Relearn\n")
    with pytest.raises(UnlearunError, match="cannot be called"):
        read_attack(str(file))


def test_where_nothing_can_be_written_it_says_so_first(run, nothing, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["attack", str(run), "--attacks", str(nothing), "--output", str(tmp_path / "file")]) == 2
    assert "cannot be written to" in capsys.readouterr().err
    shutil.rmtree(run / "attacks", ignore_errors=True)
    (run / "attacks").write_text("")
    assert main(["attack", str(run), "--attacks", str(nothing)]) == 2
    assert "cannot be written to" in capsys.readouterr().err
    assert Nothing.ran == 0


def test_a_config_with_odd_values_is_no_traceback(run, nothing, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    for change in ({"seed_everything": "hello"}, {"model": "RMU"}, {"trainer": 3}):
        (run / "config.yaml").write_text(yaml.safe_dump({**config, **change}))
        assert main(["attack", str(run), "--attacks", str(nothing)]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_number_may_be_written_as_in_any_config(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("class_path: Relearn\ninit_args:\n  learning_rate: 1e-4\n  metrics: [all, fluency]\n")
    name, made, config = read_attack(str(file))
    assert (name, made.learning_rate, made.metrics) == ("mine", 1e-4, ["all", "fluency"])
    assert config["init_args"]["learning_rate"] == 1e-4
