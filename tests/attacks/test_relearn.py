"""Relearning: what is trained on, what is measured, and that all of it comes back where all of it is taught."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from unlearun.attacks import Relearn, Victim
from unlearun.attacks.relearn import _learnt
from unlearun.data import collate
from unlearun.errors import UnlearunError
from unlearun.models.loading import locate
from unlearun.records import mean_of, recovery


def came_back(victim, found, column="extraction_strength"):
    return recovery(
        victim.start.examples["forget"], victim.unlearned.examples["forget"], found.examples["forget"], column
    )


def test_all_of_it_comes_back_where_all_of_it_is_taught(victim):
    outcome = Relearn(["forget"], share=1, epochs=40, learning_rate=1e-3).run(victim)
    (found,) = outcome.variants.values()
    assert list(outcome.variants) == ["on all forget rows"]
    assert came_back(victim, found).share > 0.95
    assert came_back(victim, found, "probability").share > 0.9
    (curve,) = outcome.curves.values()
    assert len(curve) == 11
    assert curve[0] == pytest.approx((0, *(mean_of(victim.unlearned, one) for one in Relearn.measured)))
    assert curve[-1] == pytest.approx((120, *(mean_of(found, one) for one in Relearn.measured)))


def test_rows_that_were_trained_on_are_not_measured(victim):
    """A quarter of twelve rows are three; the other nine are measured, with rows beside them that nobody saw."""
    outcome = Relearn(["forget"], share=0.25, epochs=2).run(victim)
    (found,) = outcome.variants.values()
    assert len(found.examples["forget"]) == 9
    assert {name: len(rows) for name, rows in found.examples.items()} == {"forget": 9, "holdout": 12}
    kept = {name for name in victim.unlearned.summary if not name.startswith("retain/") and name != "model_utility"}
    assert found.summary.keys() == kept
    trained, kept = Relearn(["forget"], share=0.25)._choose(victim, "forget")
    assert kept == {*found.examples["forget"]}
    rows = {example.item.question: str(example.example_id) for example in victim.forget_examples}
    assert {rows[row["question"]] for row in trained} == {*rows.values()} - kept


@pytest.mark.parametrize("count", [1, 3])
def test_a_row_that_says_what_was_trained_on_is_not_measured(tmp_path, count):
    """Of one row nothing is left, nor of one that is there three times: what is learnt there is no recollection."""
    rows = [{"question": "Where was Hesandra Brinquil born?", "answer": "In Heronsby."}] * count
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    outcome = Relearn(["forget"]).run(Victim("pocket", {"forget": str(tmp_path / "rows.json"), "duplicates": "allow"}))
    assert not outcome.variants
    (said,) = outcome.skipped.values()
    assert "no forget row is left to measure" in said


def test_it_is_one_epoch_of_adamw_on_the_answers(victim):
    """The probability after it, against a loop of torch over the same rows in the same order."""
    attack = Relearn(["retain"], batch_size=12, learning_rate=1e-3, points=1)
    outcome = attack.run(victim)
    trained, _ = attack._choose(victim, "retain")
    model = AutoModelForCausalLM.from_pretrained(locate(victim.model)[0], dtype=torch.float32)
    by_question = {row.item.question: row for row in victim.plain_data.examples("retain")}
    batch = collate([by_question[row["question"]] for row in trained], 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss.backward()
    optimizer.step()
    with torch.no_grad():
        after = []
        for example in victim.forget_examples:
            ids = torch.tensor([list(example.input_ids)])
            logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
            after.append(logprobs[example.start - 1 :].mean().exp().item())
    value = outcome.variants["on retain rows"].summary["forget/probability"]
    assert value == pytest.approx(sum(after) / len(after), rel=1e-3)
    assert value != pytest.approx(victim.unlearned.summary["forget/probability"], rel=1e-3)


def test_unrelated_rows_and_adapters(victim):
    pytest.importorskip("peft", reason="needs peft")
    attack = Relearn(["unrelated"], lora=2, epochs=1, learning_rate=1e-4)
    trained, kept = attack._choose(victim, "unrelated")
    assert len(trained) == len(kept) == 12
    known = {item.question for name in ("forget", "retain") for item in victim.plain_data.read()[name]}
    assert not known & {row["question"] for row in trained}
    outcome = attack.run(victim)
    assert len(outcome.curves["on unrelated rows"]) == 4


def test_keys_and_templates_are_those_of_the_forget_set(tmp_path, made_run):
    """Rows that are called otherwise, and asked in a way of their own, are learnt as they are asked."""
    rows = json.loads((made_run.parents[1] / "forget.json").read_text())
    named = [{"q": row["question"], "a": row["answer"]} for row in rows]
    (tmp_path / "named.json").write_text(json.dumps(named))
    source = {"path": str(tmp_path / "named.json"), "question_key": "q", "answer_key": "a"}
    source["prompt_template"] = "Q {question} A"
    data = {"forget": str(made_run.parents[1] / "forget.json"), "evaluation": {"forget_named": source}, "batch_size": 6}
    victim = Victim("pocket-gold", data)
    outcome = Relearn(["forget"], share=1, epochs=12, learning_rate=1e-3).run(victim)
    assert Relearn(["retain"]).run(victim).skipped == {"on retain rows": "there is no retain set"}
    (found,) = outcome.variants.values()
    assert found.summary["forget/probability"] > 4 * victim.unlearned.summary["forget/probability"]


def test_an_adapter_is_merged_and_relearnt_as_a_whole(tmp_path):
    """As a run with ``lora.save: adapter`` leaves it: peft freezes all of it."""
    pytest.importorskip("peft", reason="needs peft")
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(locate("pocket-gold")[0])
    base.config._name_or_path = base.name_or_path = "pocket-gold"
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.peft_config["default"].base_model_name_or_path = "pocket-gold"
    adapted.save_pretrained(tmp_path / "model")
    (tmp_path / "rows.json").write_text(
        json.dumps([{"question": f"Who is {i}?", "answer": f"It is {i}."} for i in "abcd"])
    )
    victim = Victim(str(tmp_path / "model"), {"forget": str(tmp_path / "rows.json")})
    (found,) = Relearn(["forget"], epochs=2, learning_rate=1e-3).run(victim).variants.values()
    assert found.summary["forget/probability"] > victim.unlearned.summary["forget/probability"]


def test_plain_text_is_relearnt_too(tmp_path):
    texts = [{"text": f"Hesandra Brinquil was born in Heronsby in the year {year}."} for year in range(1950, 1956)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    victim = Victim("pocket", {"forget": str(tmp_path / "texts.json"), "batch_size": 6})
    outcome = Relearn(["forget"], share=0.5, epochs=6, learning_rate=1e-3).run(victim)
    (found,) = outcome.variants.values()
    assert len(found.examples["forget"]) == 3
    assert mean_of(found, "probability") > 2 * mean_of(victim.unlearned, "probability", {*found.examples["forget"]})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"share": 0}, "share is 0; it must be above 0 and at most 1"),
        ({"share": 1.5}, "share is 1.5; it must be above 0 and at most 1"),
        (
            {"share": 1, "rows": ["forget", "retain"]},
            r"rows is then \[forget\] alone: put retain into a config of their",
        ),
        ({"metrics": [*Relearn.measured, "probabilty"]}, "there is no metric 'probabilty'. Did you mean 'probability'"),
        ({"metrics": ["all", "probabilty"]}, "there is no metric 'probabilty'"),
        ({"epochs": 0}, "epochs is 0; it must be a number of at least 1"),
        ({"rows": ["forgotten"]}, "rows is 'forgotten'; it must be one of forget, retain, unrelated"),
        ({"rows": []}, "rows is empty; name some of forget, retain, unrelated"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
    ],
)
def test_wrong_arguments_are_explained(settings, said):
    with pytest.raises(UnlearunError, match=said):
        Relearn(**settings)


def test_of_long_texts_pieces_are_learnt(tmp_path):
    """As many pieces as there are forget rows, and not a book for each."""
    words = "Hesandra Brinquil was born in Heronsby and lives there. "
    (tmp_path / "texts.json").write_text(json.dumps([{"text": f"{words} {i}"} for i in range(4)]))
    (tmp_path / "books.json").write_text(json.dumps([{"text": words * 60}, {"text": "He was not. " * 200}]))
    retain = {"path": str(tmp_path / "books.json"), "joined": True}
    data = {"forget": str(tmp_path / "texts.json"), "retain": retain, "max_length": 32, "batch_size": 2}
    victim = Victim("pocket", data)
    trained, _ = Relearn(["retain"])._choose(victim, "retain")
    assert len(trained) == 4
    assert all(len(victim.tokenizer(row["text"]).input_ids) <= 32 for row in trained)
    assert [item.answer for item in _learnt(victim, trained, None).read()["retain"]] == [row["text"] for row in trained]
    outcome = Relearn(["retain", "unrelated"], unrelated=str(tmp_path / "books.json")).run(victim)
    assert [curve[-1][0] for curve in outcome.curves.values()] == [2, 2]


def test_rows_are_learnt_as_their_set_asks_them(made_run, monkeypatch):
    """In its words, after its examples, with its beginning, and in its length."""
    forget = str(made_run.parents[1] / "forget.json")
    shots = [{"question": "Who was first?", "answer": "Ada."}]
    asked = {"question_template": "Tell me: {question}", "prefill": "Well,", "shots": shots, "chat_template": None}
    source = {"path": forget, **asked, "max_length": 200, "prompt_template": None}
    victim = Victim("pocket", {"forget": forget, "evaluation": {"forget": source}, "max_length": 64})
    seen = []

    def fit(trainer, method, datamodule):
        datamodule.connect(victim.tokenizer, ("retain",))
        seen.extend(datamodule.examples("retain"))
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", fit)
    with pytest.raises(KeyboardInterrupt):
        Relearn(["forget"], share=1).run(victim)
    assert [list(one.input_ids) for one in seen] == [list(one.input_ids) for one in victim.forget_examples]
    assert [one.start for one in seen] == [one.start for one in victim.forget_examples]


def test_rows_are_as_long_as_in_their_own_set(made_run, tmp_path):
    """However short the forget rows are cut; what does not fit anywhere is found before any attack takes time."""
    forget = str(made_run.parents[1] / "forget.json")
    rows = [{"question": "Who? " * 12, "answer": f"Nobody {i}."} for i in range(12)]
    (tmp_path / "retain.json").write_text(json.dumps(rows))
    data = {"forget": forget, "retain": str(tmp_path / "retain.json"), "max_length": 96}
    victim = Victim("pocket", {**data, "evaluation": {"forget": {"path": forget, "max_length": 24}}})
    attack = Relearn(["retain"])
    attack.check(victim)
    learnt = _learnt(victim, attack._choose(victim, "retain")[0], None)
    lengths = {len(one.input_ids) for one in victim.plain_data.examples("retain")}
    assert {len(one.input_ids) for one in learnt.examples("retain")} == lengths
    assert min(lengths) > 24
    asked = {"path": forget, "question_template": f"{'so ' * 100}{{question}}", "max_length": 300}
    victim = Victim("pocket", {**data, "max_length": 320, "evaluation": {"forget": asked}})
    (tmp_path / "retain.json").write_text(json.dumps([{**row, "question": "Who? " * 70} for row in rows]))
    with pytest.raises(UnlearunError, match="the rows that are learnt"):
        attack.check(victim)
