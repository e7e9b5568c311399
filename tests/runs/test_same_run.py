"""What goes on is the run that has been, through the Python door; test_cli.py has the command's."""

from __future__ import annotations

import shutil

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer
from safetensors.torch import load_file

from unlearun import Unlearning, UnlearunError


def run(root, method="simnpo", learning_rate=0.01, **options):
    unlearner = Unlearning(method, model=make_llama(), tokenizer=make_tokenizer(), output_dir=root)
    unlearner.load_data(FORGET, RETAIN, max_new_tokens=4)
    return unlearner.run(batch_size=2, learning_rate=learning_rate, num_epochs=2, enable_progress_bar=False, **options)


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"method": "npo"}, "is a run of SimNPO, which NPO cannot go on with"),
        ({"learning_rate": 0.5}, r"optimizer\.init_args\.lr 0\.5 would not count \(0\.01 there\)"),
    ],
)
def test_a_run_that_is_refused_other_settings_is_left_as_it_was(tmp_path, other, message):
    folder = run(tmp_path)
    whole = load_file(folder / "model" / "model.safetensors")
    shutil.rmtree(folder / "model")
    before = contents(folder)
    with pytest.raises(UnlearunError, match=message):
        run(tmp_path, resume=folder, **other)
    assert contents(folder) == before
    ended = load_file(run(tmp_path, resume=folder) / "model" / "model.safetensors")
    assert all(torch.equal(ended[name], weight) for name, weight in whole.items())


def test_a_folder_without_a_checkpoint_is_no_place_for_another_method(tmp_path):
    folder = run(tmp_path)
    for name in ("model", "checkpoints"):
        shutil.rmtree(folder / name)
    with pytest.raises(UnlearunError, match="NPO cannot go on with"):
        run(tmp_path, "npo", resume=folder)
    assert run(tmp_path, learning_rate=0.02, resume=folder) == folder  # nothing holds it to what it began with


def test_a_run_goes_on_from_the_model_that_it_began_with_wherever_that_has_moved(tmp_path, caplog):
    """A frozen reference, and what adapters are beside, are no part of a checkpoint."""
    for name in ("one", "other"):
        make_llama().save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)

    def go(name, **options):
        unlearner = Unlearning("simnpo", model=str(tmp_path / name), output_dir=tmp_path / "runs")
        unlearner.load_data(FORGET, RETAIN, max_new_tokens=4)
        return unlearner.run(batch_size=2, num_epochs=1, enable_progress_bar=False, **options)

    folder = go("one")
    shutil.rmtree(folder / "model")
    with pytest.raises(UnlearunError, match=r"began with the model .*one, and cannot go on with .*other; leave"):
        go("other", resume=folder)
    (tmp_path / "one").rename(tmp_path / "moved")
    assert go("moved", resume=folder) == folder
    assert "is not there any more; it goes on with" in caplog.text


def test_a_model_that_is_in_memory_has_no_name_to_tell_it_by(tmp_path):
    """What a program has trained already, and a run that began with an object, go on."""
    make_llama().save_pretrained(tmp_path / "one")
    make_tokenizer().save_pretrained(tmp_path / "one")
    folder = run(tmp_path)  # of an object
    shutil.rmtree(folder / "model")
    unlearner = Unlearning("simnpo", model=str(tmp_path / "one"), output_dir=tmp_path)
    unlearner.load_data(FORGET, RETAIN, max_new_tokens=4)
    arguments = {"batch_size": 2, "learning_rate": 0.01, "num_epochs": 2, "enable_progress_bar": False}
    assert unlearner.run(**arguments, resume=folder) == folder
    further = unlearner.run(**arguments)
    shutil.rmtree(further / "model")
    assert unlearner.run(**arguments, resume=further) == further
