from __future__ import annotations

import json
import logging

import pytest
import torch
from conftest import FORGET, RETAIN, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun import Unlearning
from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import DPO, AltPO
from unlearun.models import Policy, own_alternates, read_alternates, write_alternates

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
        method = fit(2, FORGET, alternates=2)
    assert "making up 2 other answers to 4 questions, once" in caplog.text
    assert all(len(set(texts)) == 2 for texts in method.preferred.values())
    assert all(text and text != FORGET[row]["answer"] for row, texts in method.preferred.items() for text in texts)


def connected(rows=FORGET, **settings):
    data = UnlearningDataModule(rows, RETAIN, max_new_tokens=5, **settings)
    data.connect(make_tokenizer(), alternate="plausible")
    return data


def test_they_are_drawn_by_seed_and_leave_other_draws_alone():
    policy, prompt = Policy(make_llama()), "{question} {answer}"
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = own_alternates(policy, connected(), prompt, 3)
    assert torch.rand(1) == expected
    assert first == own_alternates(policy, connected(), prompt, 3)
    assert first != own_alternates(policy, connected(seed=1), prompt, 3)
    assert [len(texts) for texts in first] == [3] * 4


def test_the_model_is_asked_with_question_and_answer(monkeypatch):
    asked = []

    def say(policy, formatter, prompts, max_new_tokens, batch_size, temperature):
        asked.extend(formatter.tokenizer.decode(prompt) for prompt in prompts)
        assert temperature == 1.0
        return [formatter.answer_ids("Yes.")] * len(prompts)

    monkeypatch.setattr("unlearun.models.alternates.continue_prompts", say)
    own_alternates(
        Policy(make_llama()),
        connected(prompt_template="<{question}>".replace("<", "[").replace(">", "]")),
        "Not {answer}! {question}",
        1,
    )
    assert asked == [f"[Not {row['answer']}! {row['question']}]" for row in FORGET]


def test_what_the_row_says_already_is_drawn_again_and_a_refusal_comes_last(monkeypatch, caplog):
    """The model repeats the first row's answer three times, and says nothing to the second but the third time."""
    said = iter([[FORGET[0]["answer"], "", "a", "b"], [FORGET[0]["answer"], ""], [FORGET[0]["answer"], "c"]])

    def say(policy, formatter, prompts, *_, **__):
        return [formatter.answer_ids(text) if text else [] for text in next(said)]

    monkeypatch.setattr("unlearun.models.alternates.continue_prompts", say)
    found = own_alternates(Policy(make_llama()), connected(), "{question}{answer}", 1)
    assert found[1:] == [["c"], ["a"], ["b"]]
    assert "know" in found[0][0] or len(found[0]) == 1
    assert "1 of 4 questions got no other answer" in caplog.text


def test_they_stand_in_the_run_folder_and_a_run_that_goes_on_reads_them(tmp_path, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained("tiny")
    make_tokenizer().save_pretrained("tiny")

    def run(**trainer):
        unlearner = Unlearning("altpo", "tiny", alternates=2)
        unlearner.load_data(*map(str, files), batch_size=2, max_new_tokens=3)
        return unlearner.run(learning_rate=0.05, enable_progress_bar=False, accelerator="cpu", **trainer)

    folder = run(num_epochs=1)
    stored = json.loads((folder / "alternates.json").read_text())
    assert [row["question"] for row in stored] == [row["question"] for row in FORGET]
    changed = [{**row, "alternates": ["Kept.", "Held."]} for row in stored]
    (folder / "alternates.json").write_text(json.dumps(changed))
    checkpoint = next((folder / "checkpoints").glob("*.ckpt"))
    unlearner = Unlearning("altpo", "tiny", alternates=2)
    unlearner.load_data(*map(str, files), batch_size=2, max_new_tokens=3)
    trainer = unlearner._make_trainer({"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"})
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


@pytest.mark.parametrize("wrong", [{"alternates": 0}, {"alternate_prompt": "Say {question}"}])
def test_arguments_out_of_range(wrong):
    with pytest.raises(UnlearunError, match=next(iter(wrong))):
        AltPO(make_llama(), **wrong)
