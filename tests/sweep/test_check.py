"""The check of a plan: in this process here, but for one test, since torch is loaded already."""

from __future__ import annotations

from functools import wraps

import pytest
from lightning.pytorch.loggers import CSVLogger

from unlearun.errors import UnlearunError
from unlearun.sweep import parsing
from unlearun.sweep.check import ask, check
from unlearun.sweep.plan import Plan, digests
from unlearun.sweep.values import read_grid

RMU = ["--config", "rmu"]


@pytest.fixture(autouse=True)
def here(monkeypatch, request):
    if "child" not in request.node.name:
        monkeypatch.setattr("unlearun.sweep.check.ask", lambda lines, _: parsing.facts(lines))


def test_it_finds_methods_and_the_folder_of_runs_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = check(Plan(["--output_dir", "out"], {"config": ["rmu", "simnpo"], "optimizer.lr": ["1e-4", "3e-4"]}))
    assert facts == {"methods": ["RMU", "SimNPO"], "output_dir": "out", "utility": True}
    assert not list(tmp_path.iterdir())


def test_every_combination_is_parsed_and_of_too_many_every_value(monkeypatch):
    asked = []
    monkeypatch.setattr("unlearun.sweep.check.ask", lambda lines, _: asked.extend(lines))
    check(Plan(RMU, {"a.x": ["1", "2"], "a.y": ["3", "4"]}))
    assert len(asked) == 4
    asked.clear()
    check(Plan(RMU, {"a.x": [str(n) for n in range(30)], "a.y": [str(n) for n in range(20)]}))
    assert len(asked) == 30 + 20 - 1
    assert {line[2] for line in asked} == {f"--a.x={n}" for n in range(30)}
    assert {line[3] for line in asked} == {f"--a.y={n}" for n in range(20)}


def test_of_a_search_the_ends_of_ranges_and_all_values_are_parsed(monkeypatch):
    asked = []
    monkeypatch.setattr("unlearun.sweep.check.ask", lambda lines, _: asked.extend(lines))
    check(Plan([], search={"a.x": "1e-5..0.1:log", "a.y": "2..8", "a.z": "p,q"}, trials=3))
    assert asked == [
        ["--a.x=1e-05", "--a.y=2", "--a.z=p"],
        ["--a.x=0.1", "--a.y=2", "--a.z=p"],
        ["--a.x=1e-05", "--a.y=8", "--a.z=p"],
        ["--a.x=1e-05", "--a.y=2", "--a.z=q"],
    ]


MISTAKES = {
    "a misspelt key": (["model.gama=1,2"], [], "there is no option 'model.gama'. Did you mean 'model.gamma'?"),
    "a misspelt group": (["modell.gamma=1"], [], "Did you mean 'model'?"),
    "a value of the wrong type": (["model.gamma=1,two"], [], "model.gamma is 'two'; expected float"),
    "a value out of range": (["data.batch_size=4,0"], [], "batch_size is 0; it must be a number of at least 1"),
    "a config that does not exist": (["config=rmu,nppo"], [], "Did you mean 'npo'?"),
    "a model that does not exist": (["model.model=pocket,./nowhere"], [], "there is no model at ./nowhere"),
    "an option that all have": (["model.gamma=1"], ["--trainer.max_epoch", "3"], "Did you mean 'trainer.max_epochs'?"),
    "no evaluation": (["model.gamma=1"], ["--trainer.fast_dev_run=true"], "leaves no evaluation to rank"),
    "no validation": (["model.gamma=1"], ["--trainer.limit_val_batches=0"], "leaves no evaluation to rank"),
    "no forget quality": (["model.gamma=1"], ["--data.final_metrics=[mia]"], "a sweep ranks by forget_quality"),
    "no forget set measured": (
        ["model.gamma=1"],
        ["--data.evaluation={facts: pocket/facts.json}"],
        "evaluated are facts; a sweep ranks by forget_quality, which needs a forget set",
    ),
    "no retain set": (["data.retain=null,pocket/retain.json"], [], "add --data.retain FILE"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_anything_runs(mistake):
    grid, options, said = MISTAKES[mistake]
    with pytest.raises(UnlearunError) as caught:
        check(Plan([*RMU, *options], read_grid(grid)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metrics", ["[all]", "[all, fluency]"])
def test_all_among_others_stands_for_what_it_ranks_by(metrics):
    assert check(Plan([*RMU, f"--data.final_metrics={metrics}"], {"model.gamma": ["1"]}))["utility"]


def test_a_child_looks_where_the_sweep_began(tmp_path, monkeypatch):
    began = tmp_path / "began"
    began.mkdir()
    (began / "mine.yaml").write_text("model:\n  class_path: RMU\n  init_args: {model: pocket}\n")
    monkeypatch.chdir(began)
    plan = Plan(["--config", "rmu", "--config", "mine.yaml"], {"model.gamma": ["1"]})
    plan.configs = digests(plan.arguments)
    monkeypatch.chdir(tmp_path)
    assert check(plan)["methods"] == ["RMU"]
    assert digests([], ["mine.yaml"], plan.place) == {"mine.yaml": plan.configs["mine.yaml"]}
    with pytest.raises(UnlearunError, match=r"mine.yaml.* is neither a file here"):
        digests([], ["mine.yaml"])


@pytest.mark.parametrize(
    "options", [["--data.final_metrics=[forget_quality]"], ["--data.evaluation={forget: pocket/forget.json}"]]
)
def test_without_model_utility_it_may_run_and_that_is_known(options):
    assert not check(Plan([*RMU, *options], {"model.gamma": ["1"]}))["utility"]


def test_no_model_is_loaded_and_no_logger_made(monkeypatch):
    def load(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("unlearun.methods.base.load_model", load)
    logger = "--trainer.logger={class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: x}}"
    monkeypatch.setattr(CSVLogger, "__init__", wraps(CSVLogger.__init__)(load))
    check(Plan([*RMU, logger], {"model.gamma": ["1"]}))


def test_a_child_process_does_it_and_explains_what_is_wrong():
    with pytest.raises(UnlearunError, match=r"there is no option 'model.gama'. Did you mean 'model.gamma'\?"):
        ask([[*RMU, "--model.gamma=1"], [*RMU, "--model.gama=1"]])


def test_a_child_that_breaks_is_explained(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UnlearunError, match=r"the options could not be checked \(exit status 1\): it said nothing"):
        ask([RMU])
