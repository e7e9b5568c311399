"""A run to attack, made without training: the pocket model before, and the one that never saw the rows after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from unlearun.attacks import Victim, read_victim
from unlearun.methods import UnlearningMethod
from unlearun.models.loading import locate
from unlearun.records import Evaluation
from unlearun.shipped import find_asset

FEW = {"forget": 12, "retain": 12, "holdout": 12}


def few_rows(folder: Path) -> dict[str, str]:
    """Write the first rows of the pocket data, and return the files."""
    files = {}
    for name, count in FEW.items():
        rows = json.loads(find_asset(f"pocket/{name}.json").read_text(encoding="utf-8"))[:count]
        file = folder / f"{name}.json"
        file.write_text(json.dumps(rows))
        files[name] = str(file)
    return files


def measured(model: str, data: dict, step: int) -> Evaluation:
    victim = Victim(model, data)
    found = victim.measure(victim.load(UnlearningMethod), victim.datamodule())
    found.step = step
    found.fingerprint = {**victim.plain_data.describe(), "method": "NPO", "model": model}
    return found


@pytest.fixture(scope="session")
def made_run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("attacked")
    data = {**few_rows(root), "batch_size": 4}
    run = root / "npo" / "1"
    for step, model in ((0, "pocket"), (5, "pocket-gold")):
        measured(model, data, step).write(run / "eval" / f"step={step}.json")
    shutil.copytree(locate("pocket-gold")[0], run / "model")
    config = {"model": {"class_path": "unlearun.NPO", "init_args": {"model": "pocket"}}, "data": data, "trainer": {}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@pytest.fixture
def run(made_run, tmp_path) -> Path:
    """A copy of the run, to be written to."""
    return Path(shutil.copytree(made_run, tmp_path / "npo" / "1"))


@pytest.fixture(scope="session")
def victim(made_run) -> Victim:
    return read_victim(made_run)


@pytest.fixture(scope="session")
def target(made_run) -> Victim:
    """A model that has forgotten nothing."""
    data = yaml.safe_load((made_run / "config.yaml").read_text())["data"]
    return Victim("pocket", data, Evaluation.read(made_run / "eval" / "step=0.json"))
