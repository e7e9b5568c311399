"""Asking in another way: what is asked, and what is measured of it."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from unlearun.attacks import GiveAway, Jailbreak, Relearn, Reword, Sample, Victim
from unlearun.attacks.give_away import ending, of_the_rest
from unlearun.errors import UnlearunError
from unlearun.models.loading import locate


def rest_by_hand(victim: Victim, given: int) -> list[tuple[bool, str]]:
    """Whether the model says the rest of each answer behind its first tokens, and the rest, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(locate(victim.model)[0], dtype=torch.float32)
    found = []
    for example in victim.forget_examples:
        ids = list(example.input_ids)
        answer = ids[example.start : -1]  # without the end
        split = example.start + min(given, len(answer) - 1)
        with torch.no_grad():
            said = model.generate(torch.tensor([ids[:split]]), do_sample=False, max_new_tokens=48)[0, split:].tolist()
        rest = victim.tokenizer.decode(ids[split:-1]).strip()
        found.append((victim.tokenizer.decode(said, skip_special_tokens=True).strip() == rest, rest))
    return found


def test_the_rest_of_an_answer_is_compared_with_the_same_rest_without_a_beginning(victim):
    """The target says everything before; what the retain model says by itself is what its own records have.

    Of three tokens given, some answers have a full stop left alone: they do not count.
    """
    outcome = GiveAway(tokens=[1, 3, 3]).run(victim)
    assert list(outcome.variants) == ["given 1 token", "given 3 tokens"]
    for given, (way, found) in zip((1, 3), outcome.variants.items(), strict=True):
        rows = found.examples["forget"]
        by_hand = {
            str(i): (hit, rest)
            for i, (hit, rest) in enumerate(rest_by_hand(victim, given))
            if any(letter.isalnum() for letter in rest)
        }
        assert {key: row["verbatim_memorization"] for key, row in rows.items()} == {
            k: hit for k, (hit, _) in by_hand.items()
        }
        assert {key: row["answer"] for key, row in rows.items()} == {key: rest for key, (_, rest) in by_hand.items()}
        start, plain = outcome.compared[way]["start"], outcome.compared[way]["unlearned"]
        said = victim.unlearned.examples["forget"]
        words = {key: len(rest.split()) for key, (_, rest) in by_hand.items()}  # the first may be cut
        last = {
            key: [text.split()[-words[key] :] for text in (said[key]["answer"], said[key]["generation"])]
            for key in words
        }
        ends = {key: answer == generation for key, (answer, generation) in last.items()}
        assert {key: row["verbatim_memorization"] for key, row in plain.items()} == ends
        assert sum(row["verbatim_memorization"] for row in start.values()) / len(start) > 0.9


def test_what_is_left_of_a_word_or_a_number_is_the_whole_of_it():
    """ "7" ends 1997, and "slo." ends Oslo; only who says the whole has said it."""
    said = {"a": "In 1997", "b": "She was born in Oslo.", "c": "I do not know."}
    rest = {key: ending(answer, rest) for key, answer, rest in (("a", "Born in 7", "7"), ("b", "In Oslo.", "slo."))}
    assert rest == {"a": "7", "b": "Oslo."}
    hits = {key: row["verbatim_memorization"] for key, row in of_the_rest(said, rest).items()}
    assert hits == {"a": 0.0, "b": 1.0}


def test_answers_of_which_no_word_is_left_do_not_count(tmp_path):
    (tmp_path / "rows.json").write_text(
        json.dumps([{"question": "Where?", "answer": "O."}, {"question": "Who?", "answer": "A."}])
    )
    outcome = GiveAway(tokens=[9]).run(Victim("pocket", {"forget": str(tmp_path / "rows.json")}))
    assert not outcome.variants
    assert outcome.skipped == {"given 9 tokens": "no answer has a word left behind that"}


def test_a_target_that_forgot_nothing_finishes_every_answer(target):
    outcome = GiveAway(tokens=[4]).run(target)
    assert outcome.variants["given 4 tokens"].summary["forget/verbatim_memorization"] > 0.9
    assert outcome.compared["given 4 tokens"]["start"] == outcome.compared["given 4 tokens"]["unlearned"]


def test_a_target_says_what_it_knows_however_it_is_asked(target):
    """It was never unlearned: what it knows stays as good as whole under every way that gives nothing away."""
    outcome = Reword(shots=2).run(target)
    assert len(outcome.variants) == 4
    assert outcome.variants["after 2 examples"].summary["forget/probability"] < 1
    assert max(found.summary["forget/probability"] for found in outcome.variants.values()) > 0.5


def test_paraphrases_and_languages_are_found_by_their_keys(tmp_path):
    rows = [
        {
            "question": "Who?",
            "answer": "Ada.",
            "paraphrased_question": "Which one?",
            "question_de": "Wer?",
            "hard": "X?",
        }
        | {"answer_de": "Die Ada.", "question_fr": "Qui?"},
        {"question": "Where?", "answer": "Oslo.", "paraphrased_question": "In what place?", "question_de": "Wo?"}
        | {"answer_de": "In Oslo.", "hard": "Y?"},
    ]
    file = tmp_path / "forget.json"
    file.write_text(json.dumps(rows))
    victim = Victim("pocket", {"forget": str(file)})
    skipped: dict[str, str] = {}
    ways = Reword(keys=["hard", "paraphrased_question"]).ways(victim, skipped)
    assert dict(ways) == {
        "its hard": {"question_key": "hard"},
        "its paraphrased_question": {"question_key": "paraphrased_question"},
        "in the language de": {"question_key": "question_de", "answer_key": "answer_de"},  # French is not in every row
    }
    assert skipped == {"after examples": "there are no retain rows with questions to take them from"}
    Reword(keys=["hard", "easy"]).ways(victim, skipped)
    assert skipped["its easy"] == "2 of 2 rows have no text under easy"
    assert "its hard" not in skipped
    outcome = Reword(keys=["hard"], shots=0).run(victim)
    shown = outcome.variants["its hard"].examples["forget"]["0"]
    assert shown["question"] == "X?"
    assert shown["answer"] == "Ada."
    assert outcome.variants["in the language de"].examples["forget"]["1"]["answer"] == "In Oslo."
    assert outcome.compared == {"in the language de": {}}  # what was known of another answer was not measured


def test_numbers_of_questions_are_no_indonesian(tmp_path):
    rows = [
        {"question": f"Who is {i}?", "answer": f"{i}.", "question_id": f"q-{i}", "question_sv": f"Vem {i}?"}
        for i in "ab"
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    ways = Reword(shots=0).ways(Victim("pocket", {"forget": str(tmp_path / "rows.json")}), {})
    assert [way for way in ways if "language" in way] == ["in the language sv"]


def test_shots_come_from_the_retain_set(victim):
    ways = Reword(templates=[], shots=2).ways(victim, {})
    first = victim.plain_data.read()["retain"][:2]
    shots = [{"question": item.question, "answer": item.answer} for item in first]
    assert dict(ways) == {"after 2 examples": {"shots": shots}}


def test_plain_text_asks_nothing(tmp_path):
    file = tmp_path / "forget.json"
    file.write_text(json.dumps([{"text": "Hesandra Brinquil was born in Heronsby, and lived there."}]))
    victim = Victim("pocket", {"forget": str(file)})
    outcome = Reword().run(victim)
    assert not outcome.variants
    assert outcome.skipped == {"all": "the rows are plain text, which asks no question"}
    assert Jailbreak().run(victim).skipped == {"all": "the rows are plain text, which has no answer to begin"}
    assert list(GiveAway().run(victim).skipped) == ["all"]


def test_prompts_that_an_answer_goes_on_are_no_questions(tmp_path):
    file = tmp_path / "forget.json"
    file.write_text(json.dumps([{"question": "Hesandra Brinquil was born", "answer": " in Heronsby."}]))
    victim = Victim("pocket", {"forget": {"path": str(file), "continues": True}})
    assert not Reword().ways(victim, {})
    assert not Jailbreak().ways(victim, {})
    assert list(GiveAway(tokens=[1]).run(victim).variants) == ["given 1 token"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Reword(templates=["Tell me."]), r"the template 'Tell me.' has no \{question\}"),
        (lambda: Reword(shots=-1), "shots is -1; it must be a number of at least 0"),
        (lambda: Jailbreak(roles=["A pirate."]), r"the role 'A pirate.' has no \{question\}"),
        (lambda: Jailbreak(prefixes=[" "]), "a prefix is empty"),
        (lambda: Jailbreak(prefixes=[], roles=[]), "neither prefixes nor roles"),
        (lambda: Reword(keys=[], templates=[], shots=0), "there are no keys, templates or shots"),
        (lambda: GiveAway(tokens=[0]), r"tokens\[0\] is 0; it must be a number of at least 1"),
        (lambda: GiveAway(tokens=[]), "tokens is empty"),
        (lambda: Sample(temperatures=[]), "temperatures is empty"),
        (lambda: Relearn(learning_rate=0), "learning_rate is 0; it must be above 0"),
    ],
)
def test_wrong_arguments_are_explained(make, said):
    with pytest.raises(UnlearunError, match=said):
        make()


def test_longer_prompts_have_room(made_run):
    """Shots that fill what is left of max_length would leave no answer, and no run would be attacked."""
    data = {name: str(made_run.parents[1] / f"{name}.json") for name in ("forget", "retain")}
    victim = Victim("pocket", {**data, "max_length": 48})
    outcome = Reword(templates=[], shots=4).run(victim)
    assert len(outcome.variants["after 4 examples"].examples["forget"]) == 12
    data["forget"] = {"path": data["forget"], "max_length": 48}
    outcome = Reword(templates=[], shots=4).run(Victim("pocket", data))
    assert len(outcome.variants["after 4 examples"].examples["forget"]) == 12


def test_a_way_that_no_model_has_positions_for_is_skipped(made_run):
    """The other ways are tried all the same."""
    data = {name: str(made_run.parents[1] / f"{name}.json") for name in ("forget", "retain")}
    outcome = Reword(templates=["{question}", f"{'word ' * 600}{{question}}"], shots=0).run(Victim("pocket", data))
    assert list(outcome.variants) == ["in the words '{question}'"]
    (why,) = outcome.skipped.values()
    assert re.fullmatch(r"a row has \d+ tokens then, and the model 512 positions", why)


def test_room_for_longer_prompts_is_that_of_the_forget_set_alone(made_run, tmp_path):
    """Retain answers that were cut to what the model has positions for stay cut, or no run of theirs is attacked."""
    forget = str(made_run.parents[1] / "forget.json")
    (tmp_path / "retain.json").write_text(json.dumps([{"question": "Say it.", "answer": "word " * 900}]))
    victim = Victim("pocket", {"forget": forget, "retain": str(tmp_path / "retain.json"), "max_length": 512})
    assert list(Jailbreak(roles=[]).run(victim).variants) == ["beginning with 'Sure, here is the answer:'"]


def test_answers_that_no_model_was_let_finish_do_not_count(tmp_path):
    """Without help a model says 12 tokens at most; the end of a longer answer would come back from nothing."""
    rows = [
        {"question": "Where was Hesandra Brinquil born?", "answer": "In Heronsby."},
        {"question": "Who is she?", "answer": "She is a writer who has lived in Heronsby for all of her long life."},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = {"forget": str(tmp_path / "rows.json"), "max_new_tokens": 12}
    outcome = GiveAway(tokens=[1]).run(Victim("pocket", data))
    (found,) = outcome.variants.values()
    assert list(found.examples["forget"]) == ["0"]
    (tmp_path / "rows.json").write_text(json.dumps(rows[1:]))
    outcome = GiveAway(tokens=[1]).run(Victim("pocket", data))
    assert not outcome.variants
    assert "longer than the run's max_new_tokens=12" in outcome.skipped["all"]


def test_answers_that_are_cut_do_not_count(tmp_path):
    """Who knows the whole goes on behind the cut, and so would not end with the rest."""
    rows = [
        {"question": "Where was Hesandra Brinquil born?", "answer": "In Heronsby."},
        {"question": "Who is she?", "answer": "She is a writer who has lived in Heronsby for all of her long life."},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    victim = Victim("pocket", {"forget": str(tmp_path / "rows.json"), "max_length": 28})
    assert [one.ends for one in victim.forget_examples] == [True, False]
    (found,) = GiveAway(tokens=[1]).run(victim).variants.values()
    assert list(found.examples["forget"]) == ["0"]
