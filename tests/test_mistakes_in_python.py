"""What users get wrong in Python: one error of the library, with a message that helps."""

from __future__ import annotations

import pytest
from conftest import FORGET, RETAIN, make_llama
from mistakes import make_model

from unlearun import Unlearning, UnlearunError


@pytest.fixture
def unlearner(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "tiny")
    made = Unlearning("simnpo", "tiny", output_dir="outputs")
    made.load_data(FORGET, RETAIN, max_new_tokens=4)
    return made


MISTAKES = {
    "no method": (lambda u: Unlearning("grad_dif", "tiny"), "there is no method 'grad_dif'. Did you mean 'graddiff'?"),
    "no such path": (lambda u: Unlearning("json.Nothing", "tiny"), "the method json.Nothing cannot be imported"),
    "no module": (lambda u: Unlearning("no_module.Mine", "tiny"), "the method no_module.Mine cannot be imported"),
    "no method class": (lambda u: Unlearning("json.JSONDecoder", "tiny"), "json.JSONDecoder is no method"),
    "a number for a method": (lambda u: Unlearning(5, "tiny"), "the method is 5; expected its name, such as 'rmu'"),
    "a number for a model": (lambda u: Unlearning("rmu", 5), "RMU: model is 5; expected str"),
    "a misspelt argument": (lambda u: Unlearning("rmu", "tiny", gama=2), "RMU has no argument 'gama'. Did you mean"),
    "a text for a number": (lambda u: Unlearning("rmu", "tiny", gamma="2"), "RMU: gamma is '2'; expected float"),
    "a negative number": (lambda u: Unlearning("rmu", "tiny", gamma=-2.0), "gamma is -2.0; it must be a number of"),
    "a number for lora": (
        lambda u: Unlearning("rmu", "tiny", lora=8),
        'lora is 8; expected settings by name, such as {"r',
    ),
    "a text for a rank": (
        lambda u: Unlearning("rmu", "tiny", lora={"r": "8"}),
        "lora.r is '8'; expected a whole number",
    ),
    "a misspelt rank": (
        lambda u: Unlearning("rmu", "tiny", lora={"rr": 8}),
        "lora has no setting 'rr'. Did you mean 'r'",
    ),
    "numbers for names": (
        lambda u: Unlearning("rmu", "tiny", lora={"target": [1]}),
        "lora.target is [1]; expected a list",
    ),
    "a number for a word": (lambda u: Unlearning("rmu", "tiny", lora={"save": 3}), "lora.save is 3; it must be one of"),
    "texts for layers": (
        lambda u: Unlearning("rmu", "tiny", target_layer=["a"]),
        "RMU: target_layer is ['a']; expected int, list of int or None",
    ),
    "another kind of weights": (
        lambda u: Unlearning("rmu", "tiny", dtype="float8"),
        "dtype is 'float8'; expected 'float32', 'bfloat16'",
    ),
    "a text for a seed": (lambda u: Unlearning("rmu", "tiny", seed="x"), "the seed is 'x'; it must be a whole number"),
    "no data": (lambda u: Unlearning("rmu", "tiny").run(), "there are no data yet; call load_data("),
    "nothing to forget": (lambda u: u.load_data(None), "there is neither a forget nor a retain set"),
    "a number for data": (lambda u: u.load_data(5), "UnlearningDataModule: forget is 5; expected str"),
    "texts for rows": (lambda u: u.load_data(["a"]), "the list, row 0: expected an object with keys, found str"),
    "a text for a length": (lambda u: u.load_data(FORGET, max_length="9"), "max_length is '9'; expected int"),
    "a text for metrics": (
        lambda u: u.load_data(FORGET, final_metrics="mia"),
        "final_metrics is 'mia'; expected list of",
    ),
    "no batch": (lambda u: u.run(batch_size=0), "batch_size is 0; it must be a number of at least 1"),
    "a text for a rate": (lambda u: u.run(learning_rate="fast"), "learning_rate is 'fast'; it must be a number"),
    "a negative rate": (
        lambda u: u.run(learning_rate=-1.0),
        "learning_rate is -1.0; it must be a number of at least 0",
    ),
    "negative epochs": (lambda u: u.run(num_epochs=-3), "the Trainer cannot be set up so: `max_epochs` must be"),
    "a misspelt argument of the Trainer": (
        lambda u: u.run(max_step=1),
        "Trainer has no argument 'max_step'. Did you mean",
    ),
    "a metric that nobody knows": (
        lambda u: u.evaluate(metrics=["mai"]),
        "there is no metric 'mai'. Did you mean 'mia'?",
    ),
    "a reference that is not there": (lambda u: u.evaluate(retain_reference="x"), "x cannot be read: No such file"),
    "a folder that is taken": (lambda u: u.save_model("tiny"), "tiny exists already and is not empty"),
    "no model to load": (lambda u: u.load_model("./x"), "there is no model at ./x"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_error_with_a_message(mistake, unlearner, tmp_path):
    make, says = MISTAKES[mistake]
    with pytest.raises(UnlearunError) as caught:
        make(unlearner)
    assert says in str(caught.value)
    assert not (tmp_path / "outputs").exists()


def test_what_may_be_right_is_not_refused():
    made = Unlearning("rmu", make_llama(), target_layer=(0, 1), gamma=1, lora={"r": 2, "alpha": 4})
    assert (made.method.gamma, made.method.lora.r) == (1, 2)
