from __future__ import annotations

import json
import logging

import pytest
import torch
from conftest import FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun import Unlearning
from unlearun.data import UnlearningDataModule, choose_refusal
from unlearun.errors import UnlearunError
from unlearun.methods import DPO, AltPO
from unlearun.models import AlternateSettings, Policy, own_alternates, read_alternates, write_alternates
from unlearun.runs import DivergenceGuard

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
OTHERS = [["In Rome.", "In Lima.", "In Bonn."], ["Nuts."], ["A cook.", "A judge."], ["Bo.", "Ox."]]
ROWS = [{**row, "others": others} for row, others in zip(FORGET, OTHERS, strict=True)]


def test_it_is_dpo_with_other_answers():
    forget = random_batch(seed=1)
    forget.alternate = random_batch(seed=2)
    batch = {"forget": forget, "retain": random_batch(seed=3)}
    ours, plain = (method(make_llama(seed=4), reference=make_llama(), beta=0.3) for method in (AltPO, DPO))
    assert ours.training_step(batch, 0).item() == plain.training_step(batch, 0).item()


class Seen(AltPO):
    """Keeps what was preferred, as text, by row."""

    def forget_loss(self, batch):
        for row, ids, mask in zip(batch.example_id, batch.alternate.input_ids, batch.alternate.mask, strict=True):
            text = self.tokenizer.decode(ids[mask][:-1]).strip()
            self.__dict__.setdefault("preferred", {}).setdefault(int(row), []).append(text)
        assert torch.equal(batch.example_id, batch.alternate.example_id)
        assert batch.alternate.step_tokens == int(batch.alternate.mask.sum())
        return super().forget_loss(batch)


def fit(epochs, rows=ROWS, **arguments):
    method = Seen(make_llama(), tokenizer=make_tokenizer(), **arguments)
    data = UnlearningDataModule(
        rows, RETAIN, batch_size=4, alternate_key="others" if rows is ROWS else None, max_new_tokens=6
    )
    Trainer(max_epochs=epochs, limit_val_batches=0, **QUIET).fit(method, datamodule=data)
    return method


def test_each_epoch_has_the_next_of_several_and_all_have_their_turn():
    preferred = fit(6).preferred
    for row, others in enumerate(OTHERS):
        assert len(preferred[row]) == 6
        assert {text: preferred[row].count(text) for text in others} == dict.fromkeys(others, 6 // len(others))


def test_the_reference_knows_all_of_them_before_the_first_step():
    assert len(fit(1).reference.values) == len(FORGET) + sum(map(len, OTHERS))


def test_where_rows_have_none_the_model_makes_them_up(caplog):
    with caplog.at_level(logging.INFO, logger="unlearun"):
        method = fit(2, FORGET, alternates=2, alternate_tokens=6)
    assert "making up 2 other answers to 4 questions, once" in caplog.text
    assert all(len(set(texts)) == 2 for texts in method.preferred.values())
    assert all(text and text != FORGET[row]["answer"] for row, texts in method.preferred.items() for text in texts)


def connected(rows=FORGET, **settings):
    data = UnlearningDataModule(rows, RETAIN, max_new_tokens=5, **settings)
    data.connect(make_tokenizer(), alternate="plausible")
    return data


def made_up(data, prompt="{question} {answer}", answers=1, tokens=9, seed=0, model=None):
    policy = Policy(make_llama() if model is None else model)
    return own_alternates(policy, data, data.examples("forget"), AlternateSettings(prompt, answers, tokens, seed))


def test_they_are_drawn_by_seed_and_leave_other_draws_alone():
    torch.manual_seed(5)
    make_llama()
    torch.manual_seed(5)
    expected = torch.rand(1)
    policy, data = Policy(make_llama()), connected()
    torch.manual_seed(5)
    first, again, other = (
        own_alternates(policy, data, data.examples("forget"), AlternateSettings("{question} {answer}", 3, 9, seed))
        for seed in (0, 0, 1)
    )
    assert torch.rand(1) == expected
    assert first == again != other
    assert [len(texts) for texts in first] == [3] * 4


def saying(monkeypatch, answers):
    """Let the model say what is listed: for each call the answers, "..." at their end for one that has none."""
    calls, said = [], iter(answers)

    def say(policy, formatter, prompts, max_new_tokens, batch_size, temperature):
        assert temperature == 1.0
        calls.append([formatter.tokenizer.decode(prompt) for prompt in prompts])
        found = []
        for text in next(said):
            ids = formatter.answer_ids(text) if text else []
            found.append((ids * max_new_tokens)[:max_new_tokens] if text.endswith("...") else ids)
        return found

    monkeypatch.setattr("unlearun.models.alternates.continue_prompts", say)
    return calls


def test_the_model_is_asked_with_question_and_answer(monkeypatch):
    calls = saying(monkeypatch, [["Yes."] * 4, [], []])
    made_up(connected(prompt_template="[{question}]"), "Not {answer}! {question}")
    assert calls[0] == [f"[Not {row['answer']}! {row['question']}]" for row in FORGET]


def test_what_the_row_says_already_is_drawn_again_and_a_refusal_comes_last(monkeypatch, caplog):
    """The model repeats the first row's answer three times, and says nothing to the second but the third time."""
    own = FORGET[0]["answer"]
    saying(monkeypatch, [[own, "", "a", "b"], [own, ""], [own, "c"]])
    found = made_up(connected(seed=4), tokens=99)
    assert found == [[choose_refusal(4, 0)], ["c"], ["a"], ["b"]]
    assert "1 of 4 questions got no other answer" in caplog.text


def test_an_answer_without_an_end_is_drawn_again_and_taken_at_last(monkeypatch, caplog):
    saying(monkeypatch, [["x...", "y...", "a", "b"], ["x...", "c"], ["x..."]])
    found = made_up(connected(), tokens=4)
    assert found[1:] == [["c"], ["a"], ["b"]]
    assert found[0][0].startswith("x.")
    assert "1 answers that were made up have no end within alternate_tokens (4)" in caplog.text


def test_a_question_that_the_model_has_no_room_for_names_its_row():
    with pytest.raises(
        UnlearunError, match=r"row 0: to be asked for another answer takes 359 tokens, but .* 256 positions"
    ):
        made_up(connected(), "x" * 300 + "{question}{answer}", model=make_gpt2())


def test_they_are_made_once_for_a_method_whatever_happens_between_and_for_each_method_anew():
    method = AltPO(make_llama(), tokenizer=make_tokenizer(), alternates=2, alternate_tokens=6)
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=4, max_new_tokens=6)

    def answers():
        return [tuple(one.input_ids) for one in data.alternates()]

    trainer = Trainer(max_epochs=1, limit_val_batches=0, **QUIET)
    trainer.fit(method, datamodule=data)
    first = answers()
    assert len(first) == 8
    Trainer(limit_val_batches=1, **QUIET).validate(method, datamodule=data, verbose=False)
    Trainer(max_epochs=1, limit_val_batches=0, **QUIET).fit(method, datamodule=data)
    assert answers() == first
    other = AltPO(make_llama(seed=3), tokenizer=make_tokenizer(), alternates=3, alternate_tokens=6)
    Trainer(max_epochs=1, limit_val_batches=0, **QUIET).fit(other, datamodule=data)
    assert len(answers()) == 12


def test_they_stand_in_the_run_folder_and_a_run_that_goes_on_reads_them(tmp_path, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained("tiny")
    make_tokenizer().save_pretrained("tiny")

    def run(**trainer):
        unlearner = Unlearning("altpo", "tiny", alternates=2, alternate_tokens=4)
        unlearner.load_data(*map(str, files), batch_size=2, max_new_tokens=3)
        return unlearner.run(learning_rate=0.05, enable_progress_bar=False, accelerator="cpu", **trainer)

    folder = run(num_epochs=1)
    stored = json.loads((folder / "alternates.json").read_text())
    assert [row["question"] for row in stored] == [row["question"] for row in FORGET]
    changed = [{**row, "alternates": ["Kept.", "Held."]} for row in stored]
    (folder / "alternates.json").write_text(json.dumps(changed))
    checkpoint = next((folder / "checkpoints").glob("*.ckpt"))
    unlearner = Unlearning("altpo", "tiny", alternates=2, alternate_tokens=4)
    unlearner.load_data(*map(str, files), batch_size=2, max_new_tokens=3)
    unlearner.method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.05}}
    settings = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = unlearner._make_trainer({**settings, "callbacks": [DivergenceGuard(floor=0.0)]})
    trainer.fit(unlearner.method, datamodule=unlearner.data, ckpt_path=str(checkpoint))
    assert json.loads((unlearner.method.run_folder / "alternates.json").read_text()) == changed


def test_a_file_of_other_rows_is_not_read(tmp_path):
    data = connected()
    examples = data.examples("forget")
    write_alternates(tmp_path, examples, [["a"], ["b"], ["c"], ["d"]])
    assert read_alternates(tmp_path, examples) == [["a"], ["b"], ["c"], ["d"]]
    assert read_alternates(tmp_path, connected(RETAIN).examples("forget")) is None
    (tmp_path / "alternates.json").write_text("[{]")
    assert read_alternates(tmp_path, examples) is None
    assert read_alternates(tmp_path / "nowhere", examples) is None


@pytest.mark.parametrize("wrong", [{"alternates": 0}, {"alternate_tokens": 0}, {"alternate_prompt": "Say {question}"}])
def test_arguments_out_of_range(wrong):
    with pytest.raises(UnlearunError, match=next(iter(wrong))):
        AltPO(make_llama(), **wrong)
