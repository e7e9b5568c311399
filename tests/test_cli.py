"""The command, run in this process: what it writes, prints and answers to mistakes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
import yaml
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from lightning.pytorch import strategies
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from unlearun.__main__ import main
from unlearun.cli import UnlearunCLI, method_help, resolve_configs
from unlearun.methods import METHODS
from unlearun.records import Evaluation
from unlearun.runs import RunFolder
from unlearun.shipped import configs_root

SHIPPED = sorted(str(file.relative_to(configs_root()).with_suffix("")) for file in configs_root().rglob("*.yaml"))
CONFIGS = [name for name in SHIPPED if not name.startswith("attacks/")]  # which are of another command
WHOLE = [name for name in CONFIGS if "/" not in name]
LAYERED = [name for name in CONFIGS if "/" in name]
FOR_GPUS = {
    "trainer/fsdp1": strategies.FSDPStrategy,
    "trainer/deepspeed_zero2": strategies.DeepSpeedStrategy,
    "trainer/deepspeed_zero3": strategies.DeepSpeedStrategy,
}


@pytest.fixture
def small(tmp_path, files, monkeypatch):
    """Arguments for a tiny model and data, with outputs in a fresh folder."""
    monkeypatch.chdir(tmp_path)
    make_llama(layers=4).save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    forget, retain = files
    return [
        *("--model.model", str(tmp_path / "tiny"), "--data.forget", str(forget), "--data.retain", str(retain)),
        *("--data.holdout", "null", "--data.utility", "null", "--data.max_new_tokens", "4"),
        *("--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
    ]


def layers_of(name: str) -> list[str]:
    """The --config arguments that a shipped config needs to be whole."""
    if name in WHOLE:
        return ["--config", name]
    method = Path(name).name if name.startswith("models/smollm2/") else "rmu"
    if name.startswith("benchmarks/tofu/") and "forget" not in name:
        method = "fine_tune"
    family = str(Path(name).parent)
    middle = ["--config", family] if family.startswith("models/") and family in CONFIGS else []
    return ["--config", method, *middle, "--config", name]


@pytest.mark.parametrize("name", WHOLE)
def test_no_method_s_config_names_a_layer(name):
    """It would be that of the pocket model, for whatever model is put on top."""
    settings = yaml.safe_load((configs_root() / f"{name}.yaml").read_text())["model"]["init_args"]
    assert [key for key in settings if "layer" in key] == []


def test_there_is_a_config_for_each_method():
    classes = {yaml.safe_load((configs_root() / f"{name}.yaml").read_text())["model"]["class_path"] for name in WHOLE}
    assert classes == {method.__name__ for method in METHODS}


@pytest.fixture
def gpus(monkeypatch):
    """Let Lightning believe that there are two, and DeepSpeed."""
    monkeypatch.setattr("lightning.pytorch.accelerators.cuda.num_cuda_devices", lambda: 2)
    monkeypatch.setattr("lightning.fabric.accelerators.cuda.num_cuda_devices", lambda: 2)
    monkeypatch.setitem(sys.modules, "deepspeed", MagicMock())
    for found in ("_DEEPSPEED_AVAILABLE", "_DEEPSPEED_GREATER_EQUAL_0_16"):
        monkeypatch.setattr(f"lightning.pytorch.strategies.deepspeed.{found}", True)


@pytest.mark.parametrize("name", FOR_GPUS)
def test_every_config_for_gpus_is_parsed_and_instantiated(name, tmp_path, gpus):
    cli = UnlearunCLI([*resolve_configs(layers_of(name)), "--output_dir", str(tmp_path)], run=False)
    assert type(cli.trainer.strategy) is FOR_GPUS[name]
    assert cli.trainer.num_devices == 2
    if name.startswith("trainer/deepspeed"):
        assert cli.trainer.strategy.config["zero_optimization"]["stage"] == int(name[-1])


def test_what_deepspeed_and_fsdp1_lack_is_said_in_a_line(small, capsys):
    cpu = ["--trainer.accelerator", "cpu"]
    for strategy, reason in (("fsdp", "requires a GPU accelerator"), ("deepspeed_stage_2", "DeepSpeed needs a GPU")):
        assert main(["fit", "--config", "simnpo", *small, "--trainer.strategy", strategy, *cpu]) == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in FOR_GPUS])
def test_every_config_is_parsed_and_instantiated(name, tmp_path):
    arguments = resolve_configs(layers_of(name))
    cli = UnlearunCLI([*arguments, "--output_dir", str(tmp_path)], run=False)
    expected = yaml.safe_load(Path(arguments[1]).read_text())["model"]["class_path"]
    assert type(cli.model).__name__ == expected
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("models/") and name not in FOR_GPUS])
def test_every_config_runs_a_batch(name, small, tmp_path, capsys):
    arguments = [*layers_of(name), *small, "--trainer.fast_dev_run", "true", "--trainer.profiler", "null"]
    arguments += ["--data.alternate_key", "null"]  # these rows have no other answers: AltPO's are made up
    if name.startswith("benchmarks/"):
        arguments += ["--data.evaluation", "null"]  # there is no hub
    if name == "benchmarks/wmdp/rmu":
        arguments += ["--model.target_layer", "2"]  # of four
    elif name.startswith("benchmarks/wmdp/"):  # these rows are no multiple choice; test_wmdp.py has such
        arguments += ["--data.validation_metrics", "null", "--data.final_metrics", "null"]
    assert main(["fit", *arguments, "--trainer.devices", "1"]) == 0
    assert not (tmp_path / "outputs").exists()


def test_fit_writes_a_run_folder_and_prints_before_and_after(small, tmp_path, capsys):
    assert main(["fit", "--config", "simnpo", *small]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"forget/probability\s+\d\.\d+\s+\d\.\d+\s+lower", printed)
    assert "Where does Anna live?" in printed
    assert "Where does Emil work?" in printed
    run = tmp_path / "outputs" / "simnpo" / "1"
    assert str(run.relative_to(tmp_path)) in printed
    assert {"config.yaml", "eval", "checkpoints", "model"} <= {path.name for path in run.iterdir()}
    assert list(run.glob("events.out.tfevents*"))
    before, after = (json.loads((run / "eval" / f"step={step}.json").read_text()) for step in (0, 1))
    assert before["summary"].keys() == after["summary"].keys()
    record = before["examples"]["forget"]["0"]
    assert {"probability", "perplexity", "exact_memorization", "generation"} <= record.keys()
    rows = {name: found["rows"] for name, found in before["fingerprint"]["sets"].items()}
    assert rows == {"forget": len(FORGET), "retain": len(RETAIN)}


def test_without_a_logger_the_run_folder_is_the_same_but_for_events(small, tmp_path):
    assert main(["fit", "--config", "simnpo", *small, "--trainer.logger", "false"]) == 0
    assert {path.name for path in (tmp_path / "outputs" / "simnpo" / "1").iterdir()} == {
        *("config.yaml", "eval", "checkpoints", "model", "report.html", "report.md", "report.csv")
    }
    assert not (tmp_path / "checkpoints").exists()


def test_nothing_is_loaded_or_written_before_the_data_are_checked(small, tmp_path, monkeypatch, capsys):
    def load(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("unlearun.methods.base.load_model", load)
    assert main(["fit", "--config", "simnpo", *small, "--data.max_length", "8"]) == 2
    assert "leaves no room for one answer token" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_a_second_run_never_overwrites_the_first(small, tmp_path):
    for _ in range(2):
        assert main(["fit", "--config", "simnpo", *small]) == 0
    runs = tmp_path / "outputs" / "simnpo"
    assert sorted(path.name for path in runs.iterdir()) == ["1", "2"]
    first, second = (json.loads((runs / n / "eval" / "step=1.json").read_text())["summary"] for n in ("1", "2"))
    assert first == second


def test_the_config_of_a_run_runs_it_again(small, tmp_path):
    assert main(["fit", "--config", "grad_diff", "--optimizer.lr", "0.01", *small]) == 0
    runs = tmp_path / "outputs" / "graddiff"
    assert main(["fit", "--config", str(runs / "1" / "config.yaml")]) == 0
    first, second = (json.loads((runs / n / "eval" / "step=1.json").read_text())["summary"] for n in ("1", "2"))
    assert first == second


def test_export_gives_the_logits_of_the_run(small, tmp_path, capsys):
    assert main(["fit", "--config", "simnpo", "--optimizer.lr", "0.01", *small]) == 0
    run = tmp_path / "outputs" / "simnpo" / "1"
    (checkpoint,) = (run / "checkpoints").glob("*.ckpt")
    assert main(["export", str(checkpoint), str(tmp_path / "exported")]) == 0
    ids = torch.arange(10).unsqueeze(0)
    exported, saved, start = (
        AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        for folder in (tmp_path / "exported", run / "model", tmp_path / "tiny")
    )
    assert torch.equal(exported, saved)
    assert (exported - start).abs().max() > 0.01
    assert (tmp_path / "exported" / "tokenizer.json").is_file()


@pytest.mark.parametrize("command", ["validate", "test"])
def test_validate_and_test_print_and_write(command, small, tmp_path, capsys):
    assert main([command, "--config", "simnpo", *small]) == 0
    assert "model_utility" in capsys.readouterr().out
    assert (tmp_path / "outputs" / "simnpo" / "1" / "eval" / "step=0.json").is_file()


def test_validate_a_checkpoint(small, tmp_path):
    assert main(["fit", "--config", "simnpo", "--optimizer.lr", "0.01", *small]) == 0
    run = tmp_path / "outputs" / "simnpo"
    (checkpoint,) = (run / "1" / "checkpoints").glob("*.ckpt")
    assert main(["validate", "--config", "simnpo", *small, "--ckpt_path", str(checkpoint)]) == 0
    fitted = json.loads((run / "1" / "eval" / "step=1.json").read_text())["summary"]
    validated = json.loads((run / "2" / "eval" / "step=1.json").read_text())
    assert validated["summary"] == pytest.approx(fitted)
    assert validated["fingerprint"]["checkpoint"] == str(checkpoint)


def test_a_resumed_run_shows_the_start_of_the_run_it_goes_on_from(small, tmp_path, capsys):
    assert main(["fit", "--config", "simnpo", "--optimizer.lr", "0.01", *small]) == 0
    run = tmp_path / "outputs" / "simnpo"
    (checkpoint,) = (run / "1" / "checkpoints").glob("*.ckpt")
    capsys.readouterr()
    more = ["--optimizer.lr", "0.01", "--trainer.max_epochs", "2", "--ckpt_path", str(checkpoint)]
    assert main(["fit", "--config", "simnpo", *small, *more]) == 0
    assert {file.name for file in (run / "2" / "eval").iterdir()} == {"step=0.json", "step=2.json"}  # taken over
    start = json.loads((run / "1" / "eval" / "step=0.json").read_text())["summary"]["forget/perplexity"]
    assert re.search(rf"forget/perplexity\s+{start:.3f}\s", capsys.readouterr().out)
    # What it was begun from is not what it is, nor what it goes on from.
    assert main(["validate", str(run / "2"), *small[-2:]]) == 0
    first, second, found = (
        Evaluation.read(file).summary
        for file in (
            run / "1" / "eval" / "step=1.json",
            run / "2" / "eval" / "step=2.json",
            *(run / "3" / "eval").iterdir(),
        )
    )
    assert found["forget/perplexity"] == pytest.approx(second["forget/perplexity"])
    assert found["forget/perplexity"] != pytest.approx(first["forget/perplexity"])
    config = (broken_off(run / "2") / "config.yaml").read_text()
    assert main(["fit", "--resume", str(run / "2")]) == 0
    assert (run / "2" / "config.yaml").read_text() == config
    shutil.rmtree(broken_off(run / "2") / "checkpoints")  # of its own it had none yet
    assert main(["fit", "--resume", str(run / "2")]) == 0
    again = Evaluation.read(run / "2" / "eval" / "step=2.json").summary
    assert again["forget/perplexity"] == pytest.approx(second["forget/perplexity"])


def broken_off(folder):
    """Bring a run folder to where a kill before the model was saved would have left it."""
    shutil.rmtree(folder / "model")
    return folder


def test_a_run_that_was_broken_off_goes_on_in_its_folder(small, tmp_path, capsys):
    given = ["fit", "--config", "simnpo", "--optimizer.lr", "0.01", *small]
    assert main(given) == 0
    assert main([*given, "--trainer.max_epochs", "3"]) == 0
    parent = tmp_path / "outputs" / "simnpo"
    config = (broken_off(parent / "1") / "config.yaml").read_text()
    capsys.readouterr()
    assert main([*given, "--ckpt_path", "last"]) == 0  # the newest has other settings
    assert sorted(path.name for path in parent.iterdir()) == ["1", "2"]
    assert (parent / "1" / "model").is_dir()
    assert "forget/probability" in capsys.readouterr().out
    assert main(["fit", "--resume", str(broken_off(parent / "1")), "--trainer.max_epochs", "2"]) == 0
    assert (parent / "1" / "eval" / "step=2.json").is_file()
    assert (parent / "1" / "config.yaml").read_text() == config.replace("max_epochs: 1", "max_epochs: 2")


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


OTHER_SETTINGS = [
    (["--config", "npo"], "is a run of SimNPO, which NPO cannot go on with"),
    (["--optimizer.lr", "1"], "optimizer.init_args.lr 1.0 would not count (0.01 there)"),
    (["--optimizer", "torch.optim.SGD", "--optimizer.lr", "0.01"], "optimizer torch.optim.SGD would not count"),
    (["--lr_scheduler", "StepLR", "--lr_scheduler.step_size", "1"], "StepLR would not count (none there)"),
    (["--model.lora", "{r: 2}"], "the checkpoint has 0 weights of adapters, the model 56"),
    (["--model.model", "alike"], "and cannot go on with alike; leave the model out"),
    (["--data.batch_size", "0"], "batch_size"),
    (["--data.forget", "none.json"], "none.json"),
    (["--trainer.max_epochs", "-5"], "max_epochs"),
]


# Of a checkpoint of any run, that a new one is to begin with.
OTHER_SHAPES = {
    "wide": "of another model: its policy.model.lm_head.weight is (76, 32), not",
    "deep": "another model: it has no policy.model.model.layers.4.",
    "flat": "another model: the model has no policy.model.model.layers.2.",
}


def test_a_run_that_is_refused_other_settings_is_left_as_it_was(small, tmp_path, capsys):
    """Whatever it was refused, every file of it stays, and at last it ends as if nobody had asked."""
    for name, layers, width in (("alike", 4, 32), ("wide", 4, 64), ("deep", 5, 32), ("flat", 2, 32)):
        make_llama(layers, width).save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
    given = ["fit", "--config", "simnpo", "--optimizer.lr", "0.01", *small, "--trainer.max_epochs", "2"]
    assert main(given) == 0
    folder = Path("outputs") / "simnpo" / "1"
    whole = load_file(folder / "model" / "model.safetensors")
    broken_off(folder)
    before = contents(folder)
    capsys.readouterr()
    for other, message in OTHER_SETTINGS:
        assert main(["fit", "--resume", str(folder), *other]) == 2, other
        assert message in capsys.readouterr().err
        assert contents(folder) == before, other
    checkpoint = str(next((folder / "checkpoints").glob("*.ckpt")))
    for name, message in OTHER_SHAPES.items():
        assert main([*given, "--model.model", name, "--ckpt_path", checkpoint]) == 2, name
        assert message in capsys.readouterr().err
    assert main(["fit", "--resume", str(folder)]) == 0
    ended = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(ended[name], weight) for name, weight in whole.items())


def test_a_run_that_has_ended_is_left_alone(small, tmp_path, capsys):
    given = ["fit", "--config", "simnpo", *small]
    assert main(given) == 0
    folder = tmp_path / "outputs" / "simnpo" / "1"
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    capsys.readouterr()
    for way in ([*given, "--ckpt_path", "last"], ["fit", f"--resume={folder}"]):
        assert main(way) == 0
        assert "is finished, there is nothing left to do" in capsys.readouterr().out
    assert main(["fit", "--resume", str(folder), "--trainer.max_epochs", "9"]) == 2
    assert "to train further, start from its model" in capsys.readouterr().err
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before


def test_what_cannot_go_on_is_explained(small, tmp_path, capsys):
    given = ["fit", "--config", "simnpo", *small]

    def said(*arguments):
        assert main([*arguments]) == 2
        return capsys.readouterr().err

    assert f"no run in {Path('outputs') / 'simnpo'} has this config" in said(*given, "--ckpt_path", "last")
    assert not (tmp_path / "outputs").exists()
    assert "nowhere does not exist; --resume takes a run folder" in said("fit", "--resume", "nowhere")
    assert "has no config.yaml" in said("fit", "--resume", str(tmp_path))
    assert main(given) == 0
    folder = broken_off(Path("outputs") / "simnpo" / "1")
    differs = said(*given, "--ckpt_path", "last", "--optimizer.lr", "0.5")
    assert f"{folder} differs in optimizer.init_args.lr (0.0005 there, 0.5 here)" in differs
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert "leave --ckpt_path out" in said("fit", "--resume", str(folder), "--ckpt_path", str(checkpoint))
    assert "--resume is for fit" in said("validate", "--config", "simnpo", *small, "--resume", str(folder))
    used = RunFolder(tmp_path, "simnpo", folder)
    assert used.path == folder
    assert f"{folder} is in use by another run" in said("fit", "--resume", str(folder))


def test_predict_writes_every_answer(small, tmp_path):
    assert main(["predict", "--config", "simnpo", *small]) == 0
    folder = tmp_path / "outputs" / "simnpo" / "1" / "predictions"
    lines = [json.loads(line) for line in (folder / "forget.jsonl").read_text().splitlines()]
    assert [line["question"] for line in lines] == [row["question"] for row in FORGET]
    assert len((folder / "retain.jsonl").read_text().splitlines()) == len(RETAIN)


def test_preview_marks_the_labelled_tokens(small, capsys):
    assert main(["preview", "--config", "dpo", *small[:10]]) == 0
    printed = capsys.readouterr().out
    assert "Question: Where does Anna live?\nAnswer:[[ |I|n| |O|s|l|o" in printed
    assert "alternate answer: [[" in printed
    assert "retain: 6 rows" in printed


MISTAKES = {
    "a misspelt option of the method": (["--model.steering_coef", "3"], "Did you mean 'model.steering_coeff'?"),
    "a misspelt option of the data": (["--data.forgett", "x"], "Did you mean 'data.forget'?"),
    "a misspelt option of the Trainer": (["--trainer.max_epoch", "3"], "Did you mean 'trainer.max_epochs'?"),
    "a misspelt setting of adapters": (["--model.lora.dropot", "0"], "Did you mean 'model.lora.dropout'?"),
    "a misspelt class": (["--model", "RMUU"], "Did you mean 'RMU'?"),
    "a misspelt optimizer": (["--optimizer", "Adm"], "Did you mean 'Adam'?"),
    "a value of the wrong type": (["--trainer.max_epochs", "abc"], "trainer.max_epochs is 'abc'; expected int"),
    "a value of the wrong type for the method": (["--model.adaptive", "7"], "model.adaptive is '7'; expected bool"),
    "a value of the wrong type for the optimizer": (["--optimizer.lr", "x"], "optimizer.lr is 'x'; expected float"),
    "a wrong choice": (["--data.anchor", "frget"], "data.anchor is 'frget'; expected one of ['forget', 'retain']"),
    "a config that does not exist": (["--config", "simnpoo"], "Did you mean 'simnpo'?"),
    "a number out of range": (["--data.batch_size", "0"], "batch_size is 0; it must be a number of at least 1"),
    "a number out of range for the method": (
        ["--model.gamma", "-1"],
        "gamma is -1.0; it must be a number of at least 0",
    ),
    "an adapter out of range": (["--model.lora.r", "0"], "lora.r is 0; it must be a number of at least 1"),
    "4 bits without adapters": (["--model.load_in_4bit", "true"], "add lora (--model.lora.r 16)"),
    "layers out of range": (["--model.target_layer", "[0,99]"], "layers 0 to 3"),
    "a file that does not exist": (["--data.forget", "nowhere.json"], "there is no file nowhere.json"),
    "a model that does not exist": (["--model.model", "./nowhere"], "there is no model at ./nowhere"),
    "a layer out of range": (["--model.target_layer", "99"], "layers 0 to 3"),
    "no retain set": (["--data.retain", "null"], "add --data.retain FILE"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_status_2(mistake, small, tmp_path, capsys):
    arguments, expected = MISTAKES[mistake]
    assert main(["fit", "--config", "rmu", *small, *arguments]) == 2
    error = capsys.readouterr().err
    assert "unlearun: error: " in error
    assert expected in error
    assert "Traceback" not in error


def test_an_option_of_another_method_is_called_so(capsys):
    assert main(["fit", "--config", "pdu", "--model.alpha", "2"]) == 2
    assert "'model.alpha' is an option of other methods, not of this one" in capsys.readouterr().err


def test_a_misspelt_key_in_a_file_is_explained(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("model:\n  class_path: SimNPO\n  init_args:\n    betta: 3\n")
    assert main(["fit", "--config", "simnpo", "--config", str(tmp_path / "mine.yaml")]) == 2
    assert "Did you mean 'model.beta'?" in capsys.readouterr().err


def test_an_unknown_command_is_explained(capsys):
    assert main(["fitt"]) == 2
    assert "Did you mean 'fit'?" in capsys.readouterr().err


def test_help_names_every_method_and_how_to_see_its_options(capsys):
    with pytest.raises(SystemExit) as done:
        main(["fit", "--help"])
    assert done.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(method.__name__ in printed for method in METHODS)
    assert printed.endswith("unlearun fit --model NAME --help")


def test_help_of_a_method_explains_all_its_options(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model", "RMU", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for option in ("steering_coeff", "target_layer", "adaptive", "alpha", "gamma", "gradient_checkpointing"):
        assert f"--model.{option}" in printed
    assert "a quarter of the depth" in printed
    assert "Weight of the forget loss" in printed


def test_method_help_reads_both_spellings():
    assert method_help(["--model=RMU", "-h"]) == ["--model.help", "RMU"]
    assert method_help(["--help"]) == ["--help"]


def test_importing_and_asking_the_version_load_no_torch():
    code = "import sys, unlearun, unlearun.__main__ as m; m.main(['--version']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["unlearun", "0.1.0", "False"]
