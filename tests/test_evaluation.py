"""Evaluation from door to records: every metric, from every kind of model, on one process and on two."""

from __future__ import annotations

import json
import subprocess
import sys
from math import isclose

import pytest
import yaml
from conftest import FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer
from lightning.pytorch import Trainer
from processes import as_torchrun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unlearun import Unlearning, UnlearningDataModule, UnlearunError
from unlearun.__main__ import main
from unlearun.methods import SimNPO
from unlearun.metrics import CATALOGUE, OPT_IN

POCKET = {name: f"pocket/{name}.json" for name in ("forget", "retain", "holdout", "facts")}
GOLD = "pocket/gold_records.json"
EACH_SET = (
    *("perplexity", "probability", "exact_memorization", "extraction_strength", "verbatim_memorization", "rouge"),
    "truth_ratio",
)
ATTACKS = ("mia", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference")
RELATIVE = ("privleak", "ks_forget_quality", "ks_forget_quality_log10")


def evaluate(model, metrics=None, **data):
    unlearner = Unlearning("rmu", model)
    sets = {"forget_data": POCKET["forget"], "holdout_data": POCKET["holdout"]}
    unlearner.load_data(**sets, retain_reference=GOLD, **data)
    return unlearner.evaluate(metrics)


def texts_and_numbers(folder, step):
    found = json.loads((folder / "eval" / f"step={step}.json").read_text())
    return found["summary"], found["examples"]


def same(a, b, tolerance):
    return a == b or (isinstance(a, float) and isinstance(b, float) and isclose(a, b, rel_tol=tolerance))


# ---- the pocket model ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """The summary of the pocket model, by the command, with a quarter of the retain rows."""
    folder = tmp_path_factory.mktemp("validated")
    arguments = ["--data.max_eval_rows", "60", "--trainer.enable_progress_bar", "false"]
    assert main(["validate", "--config", "rmu", "--output_dir", str(folder), *arguments]) == 0
    return folder / "rmu" / "1"


def test_validate_gives_every_metric(validated):
    summary = texts_and_numbers(validated, 0)[0]
    for name in POCKET:
        assert {f"{name}/{metric}" for metric in EACH_SET} <= set(summary)
    assert {"forget_quality", "model_utility", *ATTACKS, *RELATIVE} <= set(summary)
    known = {name for name in CATALOGUE if name not in OPT_IN and name != "short_answer"}  # no row has one
    assert known <= {name.rpartition("/")[2] for name in summary}


def test_the_target_remembers_and_keeps(validated):
    summary = texts_and_numbers(validated, 0)[0]
    assert summary["forget_quality"] < 0.01
    assert summary["model_utility"] > 0.6
    assert summary["ks_forget_quality"] < 1e-3
    assert min(summary[attack] for attack in ATTACKS) > 0.9
    assert summary["privleak"] < -90


def test_the_gold_model_never_knew():
    found = evaluate("pocket-gold")
    assert found["ks_forget_quality"] == pytest.approx(1.0, abs=1e-3)  # its own records; rounding may swap two rows
    assert found["ks_forget_quality_log10"] == pytest.approx(0.0, abs=1e-3)
    assert abs(found["privleak"]) < 1e-6
    assert found["forget_quality"] > 0.5
    assert all(0.35 < found[attack] < 0.65 for attack in ATTACKS)
    assert "no clear difference" in str(found)


def test_score_finds_the_same_to_the_last_digit(validated, capsys):
    expected = texts_and_numbers(validated, 0)[0]
    capsys.readouterr()
    assert main(["score", str(validated), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected


def test_records_say_what_was_measured_on_what(validated):
    found = json.loads((validated / "eval" / "step=0.json").read_text())
    facts = found["fingerprint"]
    assert facts["model"] == "pocket"
    assert {name: one["rows"] for name, one in facts["sets"].items()} == {
        "forget": 40,
        "retain": 60,
        "holdout": 40,
        "facts": 60,
    }
    assert facts["sets"]["forget"]["source"] == "pocket/forget.json"
    assert len({one["digest"] for one in facts["sets"].values()}) == 4
    assert {"template", "tokenizer", "generation", "precision", "versions"} <= set(facts)
    record = found["examples"]["forget"]["0"]
    assert record["generation"] == record["answer"]
    assert record["question"].startswith("Where was")


def test_tensorboard_has_curves_texts_and_figures(validated):
    events = EventAccumulator(str(validated))
    events.Reload()
    tags = events.Tags()
    summary = texts_and_numbers(validated, 0)[0]
    assert set(summary) <= set(tags["scalars"])
    assert {"membership", "likelihood", "truth_ratio"} <= set(tags["images"])
    assert {f"answers/{name}/text_summary" for name in POCKET} <= set(tags["tensors"])
    assert b"\x89PNG" in events.Images("membership")[0].encoded_image_string


# ---- the Python door ----------------------------------------------------------------------------------------------


def test_chosen_metrics_stand_under_the_names_promised():
    asked = ["perplexity", "forget_quality", "model_utility", "rouge", "verbatim_memorization", "mia"]
    found = evaluate("pocket", asked, retain_data=POCKET["facts"])
    for name in ("perplexity", "rouge", "verbatim_memorization"):
        assert {name, f"retain/{name}", f"holdout/{name}"} <= set(found)
    assert {"forget_quality", "model_utility", "mia"} <= set(found)
    assert not {"probability", "mia_zlib", "privleak"} & set(found)
    assert found.parts["model_utility"] == ["retain/probability", "retain/rouge", "retain/truth_ratio"]
    low, high = found.intervals["perplexity"]
    assert low < found["perplexity"] < high


@pytest.mark.parametrize(
    ("metric", "key"),
    [("mia", "holdout_data"), ("truth_ratio", "perturbed_answer"), ("privleak", "holdout_data"), ("mai", "'mia'")],
)
def test_a_metric_without_its_data_names_the_key(metric, key):
    unlearner = Unlearning("grad_diff", make_llama(), tokenizer=make_tokenizer())
    unlearner.load_data(FORGET, RETAIN)
    with pytest.raises(UnlearunError, match=key):
        unlearner.evaluate([metric])
    assert set(unlearner.evaluate(["forget_quality", "model_utility"])) == {"forget_quality", "model_utility"}


def test_a_reference_of_other_rows_is_refused(tmp_path, validated):
    unlearner = Unlearning("grad_diff", "pocket")
    unlearner.load_data(POCKET["facts"], POCKET["retain"])
    with pytest.raises(UnlearunError, match="the reference has 40 forget rows, this evaluation 60"):
        unlearner.evaluate(["ks_forget_quality"], retain_reference=str(validated))


def test_what_the_package_ships_is_left_out_with_other_data():
    """A shipped config names it for the pocket data; it must not stand in the way of the user's own."""
    unlearner = Unlearning("grad_diff", make_llama(), tokenizer=make_tokenizer())
    unlearner.load_data(FORGET, RETAIN, retain_reference=GOLD)
    assert "forget_quality" in unlearner.evaluate()


def test_the_gradient_norm_is_a_pass_of_its_own_outside_training():
    unlearner = Unlearning("rmu", make_llama(), tokenizer=make_tokenizer())
    unlearner.load_data(FORGET, RETAIN, holdout_data=RETAIN[:3])
    found = unlearner.evaluate(["mia_grad_norm"])
    assert 0 <= found["mia_grad_norm"] <= 1
    assert all(weight.grad is None for weight in unlearner.model.parameters())


def test_cheap_metrics_between_all_of_them_at_the_ends(tmp_path):
    unlearner = Unlearning("simnpo", make_llama(), tokenizer=make_tokenizer(), output_dir=tmp_path)
    unlearner.load_data(FORGET, RETAIN, max_new_tokens=4, batch_size=4, validation_metrics=["probability"])
    folder = unlearner.run(num_epochs=3, enable_progress_bar=False)
    names = {step: set(texts_and_numbers(folder, step)[0]) for step in (0, 1, 2, 3)}
    assert names[1] == names[2] == {"forget/probability", "retain/probability"}
    assert names[0] == names[3] > names[1] | {"model_utility", "forget/rouge"}


# ---- any model ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_run(tmp_path, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unlearner = Unlearning("simnpo", make_llama(), tokenizer=make_tokenizer())
    forget, retain = map(str, files)
    unlearner.load_data(forget, retain, max_new_tokens=4)
    folder = unlearner.run(num_epochs=1, learning_rate=0.01, enable_progress_bar=False)
    return folder, ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]


def test_a_run_folder_and_its_checkpoint_are_evaluated_by_name(tiny_run, tmp_path):
    folder, flags = tiny_run
    (checkpoint,) = (folder / "checkpoints").glob("*.ckpt")
    expected = texts_and_numbers(folder, 1)[0]
    assert main(["validate", str(folder), "--model.tokenizer", str(folder / "model"), *flags]) == 0
    assert texts_and_numbers(tmp_path / "outputs/simnpo/2", 0)[0] == pytest.approx(expected, rel=1e-5, nan_ok=True)
    model = ["--model.model", str(folder), "--model.tokenizer", str(folder / "model")]
    assert main(["test", str(checkpoint), *model, *flags]) == 0
    assert texts_and_numbers(tmp_path / "outputs/simnpo/3", 1)[0] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_a_model_by_name_needs_no_config_and_no_method(tiny_run, files, tmp_path, capsys):
    folder, flags = tiny_run
    assert main(["validate", str(folder / "model"), "--data.forget", str(files[0]), *flags]) == 0
    assert "forget_quality" in capsys.readouterr().out
    assert (tmp_path / "outputs" / "unlearningmethod" / "1" / "eval" / "step=0.json").is_file()


def test_loaders_of_the_users_own_are_measured_without_texts():
    method = SimNPO(make_llama(), tokenizer=make_tokenizer())
    data = UnlearningDataModule(FORGET, RETAIN)
    data.connect(make_tokenizer())
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(method, dataloaders=data.val_dataloader(), verbose=False)
    assert {"forget/probability", "retain/perplexity"} <= set(method.evaluation.summary)
    assert "forget/rouge" not in method.evaluation.summary


# ---- two processes ------------------------------------------------------------------------------------------------


def rows_with_wrong_answers(rows):
    return [
        {**row, "paraphrased_answer": f"yes {row['answer']}", "perturbed_answer": ["no", "not at all"]} for row in rows
    ]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_find_what_one_finds(tmp_path, monkeypatch, capsys, strategy):
    """A whole fit in float64, with cached references of both kinds: the same records, texts and curves, to 1e-8.

    The first process alone shows its progress and writes events.
    """
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    for name, rows in {"forget": FORGET[:3], "retain": RETAIN, "holdout": RETAIN[:3]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows_with_wrong_answers(rows)))
    command = [
        *("fit", "--config", "npo", "--model.model", "tiny", "--model.dtype", "float64", "--data.utility", "null"),
        *("--model.retain_loss_type", "KL"),
        *(part for name in ("forget", "retain", "holdout") for part in (f"--data.{name}", f"{name}.json")),
        *("--data.max_new_tokens", "4", "--data.eval_batch_size", "1", "--trainer.precision", "64-true"),
        *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "2"),
    ]
    two = ["--trainer.strategy", strategy, "--trainer.devices", "2", "--data.batch_size", "1"]
    assert main([*command, "--trainer.devices", "1", "--data.batch_size", "2"]) == 0
    if strategy == "ddp":  # Lightning starts the second process
        ran = [sys.executable, "-m", "unlearun", *command, *two]
        done = subprocess.run(ran, capture_output=True, text=True, timeout=400, check=False)
        status, said = done.returncode, done.stdout
    else:
        first, second = as_torchrun([*command, *two])
        status, said = first[0] or second[0], first[1] + second[1]
    assert status == 0, said
    assert said.count("run folder:") == 1
    assert said.count("Epoch ") == capsys.readouterr().out.count("Epoch ") > 0
    assert {path.name for path in (tmp_path / "outputs" / "npo").iterdir()} == {"1", "2"}
    folders = [tmp_path / "outputs" / "npo" / number for number in ("1", "2")]
    for step in (0, 2, 4):
        (summary, examples), (other_summary, other_examples) = (texts_and_numbers(f, step) for f in folders)
        assert list(summary) == list(other_summary)
        assert all(same(summary[name], other_summary[name], 1e-8) for name in summary)
        assert {name: list(rows) for name, rows in examples.items()} == {n: list(r) for n, r in other_examples.items()}
        for name, rows in examples.items():
            for key, record in rows.items():
                other = other_examples[name][key]
                assert list(record) == list(other)
                assert all(same(record[column], other[column], 1e-8) for column in record), (name, key)
    curves = []
    for folder in folders:
        assert len(list(folder.glob("events.out.tfevents.*"))) == 1
        events = EventAccumulator(str(folder))
        events.Reload()
        tags = events.Tags()["scalars"]
        curves.append({tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags})
    assert list(curves[0]) == list(curves[1])
    for tag, points in curves[0].items():  # TensorBoard keeps float32
        for (step, value), (other_step, other) in zip(points, curves[1][tag], strict=True):
            assert step == other_step
            assert same(value, other, 1e-5) or value != value, tag


# ---- what once went wrong -----------------------------------------------------------------------------------------


def tiny_unlearner(tmp_path, method="grad_ascent", **data):
    unlearner = Unlearning(method, make_llama(), tokenizer=make_tokenizer(), output_dir=tmp_path)
    unlearner.load_data(FORGET, RETAIN, **{"max_new_tokens": 4, "batch_size": 2, **data})
    return unlearner


def test_records_meet_a_retain_reference_later(validated, tmp_path, capsys):
    """Measured without a reference, scored with one: nothing is lost."""
    found = evaluate("pocket", retain_data=None)
    arguments = ["--data.forget", POCKET["forget"], "--data.holdout", POCKET["holdout"], "--output_dir", str(tmp_path)]
    assert main(["validate", "pocket", *arguments, "--trainer.enable_progress_bar", "false"]) == 0
    capsys.readouterr()
    assert main(["score", str(tmp_path / "unlearningmethod" / "1"), "--retain", GOLD, "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    for name in RELATIVE:
        assert scored[name] == pytest.approx(found[name], rel=1e-6)


def test_evaluate_measures_the_model_as_it_is_now(tmp_path):
    """Whatever limits the run had, and whatever was measured before it."""
    unlearner = tiny_unlearner(tmp_path)
    before = unlearner.evaluate(["probability"])["probability"]
    unlearner.run(num_epochs=3, learning_rate=0.05, limit_val_batches=0, enable_progress_bar=False)
    assert unlearner.evaluate(["probability"])["probability"] < 0.5 * before


def test_a_cheap_validation_before_the_first_step_leaves_step_zero_alone(tmp_path):
    unlearner = tiny_unlearner(tmp_path, method="simnpo", batch_size=1)
    run = {"num_epochs": 1, "gradient_accumulation_steps": 4, "val_check_interval": 2, "enable_progress_bar": False}
    folder = unlearner.run(**run)
    assert "forget_quality" in texts_and_numbers(folder, 0)[0]
    second = unlearner.run(**run)  # goes on from what the first has left, and counts from 0 again
    assert {file.name for file in (second / "eval").iterdir()} == {"step=0.json", "step=1.json"}
    configs = [yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"] for run in (folder, second)]
    assert configs[0]["model"] != configs[1]["model"] == str(folder / "model")  # what would run this again


def test_a_partial_evaluation_says_so_and_is_no_reference(tmp_path):
    method = SimNPO(make_llama(), tokenizer=make_tokenizer())
    unlearner = Unlearning("simnpo", make_llama(), tokenizer=make_tokenizer(), output_dir=tmp_path)
    rows = rows_with_wrong_answers(FORGET)
    unlearner.load_data(rows, RETAIN, max_new_tokens=4, eval_batch_size=1)
    folder = unlearner.run(num_epochs=1, limit_val_batches=1, enable_progress_bar=False)
    facts = json.loads((folder / "eval" / "step=0.json").read_text())["fingerprint"]["sets"]["forget"]
    assert (facts["rows"], facts["partial"]) == (2, True)
    assert method.evaluation is None
    with pytest.raises(UnlearunError, match="cannot be the retain reference"):
        unlearner.evaluate(["ks_forget_quality"], retain_reference=str(folder))


def test_a_set_of_which_nothing_was_asked_is_not_partial(tmp_path):
    unlearner = tiny_unlearner(tmp_path, method="simnpo", final_metrics=["forget_quality"])
    folder = unlearner.run(num_epochs=1, enable_progress_bar=False)
    facts = json.loads((folder / "eval" / "step=0.json").read_text())["fingerprint"]["sets"]
    assert {"forget", "retain"} <= facts.keys()
    assert not any("partial" in one for one in facts.values())


def test_a_broken_model_is_measured_as_broken():
    model = make_llama()
    model.model.layers[0].mlp.down_proj.weight.data.fill_(float("nan"))
    unlearner = Unlearning("simnpo", model, tokenizer=make_tokenizer())
    unlearner.load_data(FORGET, RETAIN, holdout_data=RETAIN[:3], max_new_tokens=4)
    found = unlearner.evaluate()
    for name in ("probability", "mia", "mia_min_k", "mia_min_k_plus_plus", "model_utility"):
        assert found[name] != found[name], name
    assert "unknown: some records hold no number" in str(found)


def test_loaders_of_the_users_own_are_not_taken_for_those_of_the_datamodule():
    method, data = SimNPO(make_llama(), tokenizer=make_tokenizer()), UnlearningDataModule(FORGET, RETAIN)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    (returned,) = trainer.validate(method, datamodule=data, verbose=False)[:1]
    assert returned["forget/probability"] == pytest.approx(method.evaluation.summary["forget/probability"])
    trainer.validate(method, dataloaders=data.val_dataloader()["retain"], verbose=False)
    assert set(method.evaluation.examples) == {"set0"}
    assert all("question" not in record for record in method.evaluation.examples["set0"].values())


@pytest.mark.parametrize("name", ["forget/sub", "", "forget_2"])
def test_names_of_sets_that_would_mislead_are_refused(name):
    with pytest.raises(UnlearunError, match="cannot be called"):
        UnlearningDataModule(FORGET, utility={name: RETAIN})


def test_rows_longer_than_the_models_positions_are_one_sentence():
    unlearner = Unlearning("simnpo", make_gpt2(), tokenizer=make_tokenizer())
    positions = unlearner.model.config.max_position_embeddings
    unlearner.load_data([{"question": "Why?", "answer": "So " * positions}], RETAIN)
    with pytest.raises(UnlearunError, match=f"the model has {positions} positions; set max_length to {positions}"):
        unlearner.evaluate()


def test_answers_cut_or_too_long_are_said(caplog):
    rows = [{**row, "perturbed_answer": ["no " * 40, "no"]} for row in FORGET]
    unlearner = Unlearning("simnpo", make_llama(), tokenizer=make_tokenizer())
    unlearner.load_data(rows, RETAIN, max_length=100, max_new_tokens=4)
    found = unlearner.evaluate(["truth_ratio", "rouge"])
    assert 0 < found["truth_ratio"] <= 1
    said = [record.getMessage() for record in caplog.records]
    assert any("4 paraphrased and wrong answers are longer than max_length=100" in line for line in said)
    assert any("4 of 4 answers are longer than max_new_tokens=4" in line for line in said)


# ---- what a newcomer met ------------------------------------------------------------------------------------------


def test_the_model_named_is_the_model_measured(tiny_run, tmp_path):
    """A config that follows brings its data, and not its model."""
    folder, flags = tiny_run
    sets = ["--data.forget", str(tmp_path / "forget.json"), "--data.retain", "null", "--data.holdout", "null"]
    own = [
        "--model.tokenizer",
        str(folder / "model"),
        "--data.utility",
        "null",
        "--data.final_metrics",
        "[probability]",
    ]
    assert main(["validate", str(folder), "--config", "simnpo", *sets, *own, *flags]) == 0
    found = texts_and_numbers(tmp_path / "outputs/simnpo/2", 0)[0]["forget/probability"]
    assert found == pytest.approx(texts_and_numbers(folder, 1)[0]["forget/probability"], rel=1e-5)


@pytest.mark.parametrize("target", ["outputs/simnpo/99", "outputs", "outputs/simnpo/1/eval/step=0.json"])
def test_a_target_that_holds_no_model_is_said(target, tiny_run, files, capsys):
    assert main(["validate", target, "--data.forget", str(files[0])]) == 2
    assert target in capsys.readouterr().err


def test_rows_of_holdout_that_the_model_has_seen_are_said(caplog):
    UnlearningDataModule(FORGET, RETAIN, holdout=RETAIN[:2]).read()
    assert "2 rows of holdout stand in retain too" in caplog.text


def test_every_so_many_batches_goes_on_across_epochs(tmp_path):
    unlearner = tiny_unlearner(tmp_path, method="simnpo")
    folder = unlearner.run(num_epochs=4, val_check_interval=3, enable_progress_bar=False)
    assert {file.name for file in (folder / "eval").iterdir()} == {f"step={n}.json" for n in (0, 3, 6, 8)}


def test_answers_to_the_forget_questions_are_there_whatever_is_measured(tmp_path):
    unlearner = tiny_unlearner(tmp_path, method="simnpo", final_metrics=["probability"])
    folder = unlearner.run(num_epochs=1, enable_progress_bar=False)
    examples = texts_and_numbers(folder, 2)[1]
    assert all("generation" in record for record in examples["forget"].values())


def test_a_metric_in_the_working_folder_is_found_and_its_mistake_said(tmp_path, monkeypatch, files, capsys):
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    (tmp_path / "mine_of_now.py").write_text(
        "from unlearun.metrics import TokenMetric\n"
        "class Best(TokenMetric):\n"
        "    title = 'best'\n"
        "    def measure(self, stats, batch):\n"
        "        return (stats.logprobs.exp() * batch.mask).amax(-1, keepdim=True)\n"
        "class Flat(TokenMetric):\n"
        "    title = 'flat'\n"
        "    def measure(self, stats, batch):\n"
        "        return stats.logprobs.sum(-1)\n"
    )
    command = ["validate", "tiny", "--data.forget", str(files[0]), "--trainer.enable_progress_bar", "false"]
    assert main([*command, "--data.final_metrics", "[mine_of_now.Best]"]) == 0
    assert 0 < texts_and_numbers(tmp_path / "outputs/unlearningmethod/1", 0)[0]["forget/best"] <= 1
    assert main([*command, "--data.final_metrics", "[mine_of_now.Flat]"]) == 2
    assert main([*command, "--output_dir", "elsewhere", "--data.final_metrics", "[mai]"]) == 2
    assert not (tmp_path / "elsewhere").exists()
    assert "Flat.measure returned (4,); expected a tensor of shape (4, 1)" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "outputs" / "unlearningmethod").iterdir()] == ["1"]


def test_one_number_is_found_by_either_name():
    found = evaluate("pocket", ["probability"])
    assert found["forget/probability"] == found["probability"]
    with pytest.raises(KeyError):
        _ = found["forget/nothing"]
