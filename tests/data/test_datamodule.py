from __future__ import annotations

from types import SimpleNamespace

import pytest
from conftest import FORGET, RETAIN, make_tokenizer

from unlearun.data import Batch, UnlearningDataModule, choose_refusal
from unlearun.errors import UnlearunError


def stub_trainer(rank=0, world=1, accumulate=1, **more):
    """What the datamodule reads of a Trainer."""
    return SimpleNamespace(
        global_rank=rank,
        world_size=world,
        accumulate_grad_batches=accumulate,
        limit_train_batches=1.0,
        **{"overfit_batches": 0, **more},
    )


def rows(count: int, key: str = "a") -> list[dict[str, str]]:
    """Rows whose answers have 1, 2, 3, ... letters: with the space before and eos, 3, 4, 5, ... labelled tokens."""
    return [{"question": f"{key}{n}?", "answer": "x" * (n + 1)} for n in range(count)]


def connected(*sources, tokenizer=None, trained=("forget", "retain"), alternate=None, **settings):
    data = UnlearningDataModule(*sources, **settings)
    data.connect(tokenizer or make_tokenizer(), trained, alternate)
    return data


def under_trainer(data, rank=0, world=1, accumulate=1, epoch=0):
    """The training batches of one process, as a Trainer asks for them."""
    data.trainer = stub_trainer(rank, world, accumulate)
    loader = data.train_dataloader()
    for one in loader.flattened:
        one.sampler.set_epoch(epoch)
    batches = [batch for batch, _, _ in loader]
    data.trainer = None
    return batches


def ids(batches, name) -> list[int]:
    return [int(row) for batch in batches for row in batch[name].example_id if row >= 0]


# ---- what is read and refused -----------------------------------------------------------------------------------


def test_files_are_read_without_a_tokenizer(files):
    data = UnlearningDataModule(*map(str, files))
    data.prepare_data()
    items = data.read()
    assert [(item.question, item.answer) for item in items["forget"]] == [tuple(row.values()) for row in FORGET]
    assert [(item.question, item.answer) for item in items["retain"]] == [tuple(row.values()) for row in RETAIN]


def test_errors_name_the_set_and_the_line(files):
    forget, retain = files
    retain.write_text(retain.read_text().replace('"At the old mill."', "3"))
    with pytest.raises(UnlearunError, match=r"the retain set: 1 problem\n.*retain\.jsonl, line 1: key 'answer' is int"):
        UnlearningDataModule(str(forget), str(retain)).read()


def test_every_bad_number_is_named_at_once():
    with pytest.raises(UnlearunError) as caught:
        UnlearningDataModule(FORGET, max_length=1, batch_size=0, eval_batch_size=0, max_eval_rows=0, num_workers=-1)
    for name in ("max_length is 1", "batch_size is 0", "eval_batch_size is 0", "max_eval_rows is 0", "num_workers"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("anchor", "forgte"), ("truncation", "eror"), ("overlap", "warm"), ("anchor", "holdout")]
)
def test_a_misspelt_choice_is_an_error_in_python_too(name, value):
    with pytest.raises(UnlearunError, match=f"{name} is '{value}'; it must be one of"):
        UnlearningDataModule(FORGET, RETAIN, **{name: value})


def test_a_prompt_template_must_hold_the_question():
    with pytest.raises(UnlearunError, match=r"must hold \{question\}"):
        UnlearningDataModule(FORGET, prompt_template="Q: {prompt}")


def test_there_must_be_something_to_train_on():
    with pytest.raises(UnlearunError, match=r"neither a forget nor a retain set; add --data\.forget FILE"):
        UnlearningDataModule(None, None, holdout=FORGET)


@pytest.mark.parametrize(
    ("sources", "missing"), [((FORGET, None), "retain"), ((None, RETAIN), "forget")], ids=["retain", "forget"]
)
def test_a_set_may_be_missing_only_where_the_method_does_not_train_on_it(sources, missing):
    with pytest.raises(UnlearunError, match=rf"trains on the {missing} set, but there is none; add --data\.{missing}"):
        connected(*sources)
    other = "forget" if missing == "retain" else "retain"
    data = connected(*sources, trained=(other,))
    (batch,) = under_trainer(data)
    assert list(batch) == [other]


def test_a_method_that_needs_alternates_can_be_evaluated_on_retain_alone():
    data = connected(None, RETAIN, trained=(), alternate="any")
    assert data.alternates() is None
    assert len(data.examples("retain")) == len(RETAIN)


# ---- rows in both sets ------------------------------------------------------------------------------------------


def test_rows_in_both_sets_are_warned_about(caplog):
    UnlearningDataModule(FORGET, [*RETAIN, *FORGET[1:3]]).read()
    assert "2 rows stand in both forget and retain (first: the list, row 1)" in caplog.text


def test_rows_in_both_sets_can_be_an_error_or_allowed(caplog):
    sources = (FORGET, [*RETAIN, FORGET[0]])
    with pytest.raises(UnlearunError, match="1 row stands in both"):
        UnlearningDataModule(*sources, overlap="error").read()
    UnlearningDataModule(*sources, overlap="allow").read()
    assert not caplog.text


def test_the_same_question_with_another_answer_is_no_overlap(caplog):
    UnlearningDataModule(FORGET, [{**FORGET[0], "answer": "In Rome."}], overlap="error").read()
    assert not caplog.text


def test_rows_that_stand_in_a_set_twice_are_warned_about_an_error_or_allowed(caplog):
    """The second and third row come back once and twice: three too many."""
    rows = [*FORGET, FORGET[1], FORGET[2], FORGET[2]]
    UnlearningDataModule(rows, RETAIN).read()
    assert "forget: 3 of 7 rows stand there before already (first: the list, row 1)" in caplog.text
    with pytest.raises(UnlearunError, match="3 of 7 rows"):
        UnlearningDataModule(rows, duplicates="error").read()
    caplog.clear()
    UnlearningDataModule(rows, RETAIN, duplicates="allow").read()
    UnlearningDataModule([*FORGET, {**FORGET[0], "answer": "In Rome."}], RETAIN).read()
    assert not caplog.text


# ---- names of sets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../x", "..", ".x", "a/b", r"a\b", "", "a\0b", "a\nb", "C:x", "x" * 101, 3])
def test_a_set_cannot_be_named_so_that_its_file_leaves_the_run_folder(name):
    for argument in ("utility", "evaluation"):
        with pytest.raises(UnlearunError, match="a set cannot be called"):
            UnlearningDataModule(FORGET, RETAIN, **{argument: {name: RETAIN}})


@pytest.mark.parametrize("name", ["facts", "real_authors", "Fähigkeiten", "mmlu-5.2 b", "日本"])
def test_a_set_may_be_named_as_people_name_things(name):
    assert name in UnlearningDataModule(FORGET, RETAIN, utility={name: RETAIN}).evaluated


# ---- too long ---------------------------------------------------------------------------------------------------


def test_cut_answers_are_counted_and_warned_about(caplog):
    """Prompts "Question: a0?\\nAnswer:" have 21 tokens, so 25 leave four: x and xx fit with space and eos, xxx not."""
    data = connected(rows(4), rows(2, "b"), max_length=25)
    assert "forget: 2 of 4 answers are longer than max_length=25 tokens and were cut" in caplog.text
    assert "retain" not in caplog.text
    assert [example.labelled for example in data.examples("forget")] == [3, 4, 4, 4]


def test_cut_answers_can_be_an_error():
    with pytest.raises(UnlearunError, match="the forget set: 2 problems"):
        connected(rows(4), rows(2, "b"), max_length=25, truncation="error")


def test_cut_alternate_answers_are_counted_too(caplog):
    given = [{**row, "other": "n" * 9} for row in rows(2)]
    connected(given, rows(2, "b"), max_length=25, alternate_key="other", alternate="any")
    assert "forget (alternate answers): 2 of 2 answers are longer" in caplog.text


# ---- training batches -------------------------------------------------------------------------------------------


def test_training_zips_forget_and_retain_and_ends_with_the_anchor():
    """Four forget rows in twos make two batches; retain has six rows, of which the first epoch draws four."""
    data = connected(FORGET, RETAIN, batch_size=2)
    batches = under_trainer(data)
    assert [list(batch) for batch in batches] == [["forget", "retain"]] * 2
    assert all(isinstance(batch["forget"], Batch) for batch in batches)
    assert sorted(ids(batches, "forget")) == [0, 1, 2, 3]
    assert len(set(ids(batches, "retain"))) == 4


def test_the_other_set_is_used_up_before_it_is_reshuffled():
    data = connected(FORGET, RETAIN, batch_size=2)
    epochs = [ids(under_trainer(data, epoch=epoch), "retain") for epoch in range(3)]
    assert sorted([*epochs[0], *epochs[1], *epochs[2]]) == sorted([*range(6), *range(6)])
    assert sorted(epochs[0] + epochs[1][:2]) == list(range(6))


def test_anchor_retain_passes_retain_once():
    batches = under_trainer(connected(FORGET, RETAIN, batch_size=2, anchor="retain"))
    assert len(batches) == 3
    assert sorted(ids(batches, "retain")) == list(range(6))
    assert sorted(ids(batches, "forget")[:4]) == [0, 1, 2, 3]
    assert len(ids(batches, "forget")) == 6


def test_order_follows_from_the_seed_and_shuffle_can_be_off():
    def order(**settings):
        return ids(under_trainer(connected(rows(20), rows(20, "b"), **settings)), "forget")

    assert order(seed=3) == order(seed=3) != order(seed=4)
    assert order(shuffle=False) == list(range(20))
    batches = under_trainer(connected(rows(20), rows(20, "b"), seed=3))
    assert ids(batches, "forget") != ids(batches, "retain")  # the sets are not shuffled alike


@pytest.mark.parametrize(("world", "batch", "accumulate"), [(1, 8, 1), (2, 4, 1), (1, 2, 4), (2, 2, 2)])
def test_an_optimizer_step_is_the_same_for_every_split_and_knows_its_size(world, batch, accumulate):
    """Ten rows of 3 to 12 labelled tokens in steps of 8: the last window has two rows."""
    data = connected(rows(10), rows(14, "b"), batch_size=batch)
    ranks = [under_trainer(data, rank, world, accumulate) for rank in range(world)]
    micro = list(zip(*ranks, strict=True))
    windows = [sum(micro[at : at + accumulate], ()) for at in range(0, len(micro), accumulate)]
    whole = under_trainer(connected(rows(10), rows(14, "b"), batch_size=8))
    assert len(windows) == len(whole) == 2
    for name in ("forget", "retain"):
        for window, expected in zip(windows, whole, strict=True):
            assert sorted(ids(window, name)) == sorted(ids([expected], name))
            tokens = sum(int(part[name].mask.sum()) for part in window)
            assert {part[name].step_tokens for part in window} == {tokens}
            assert {part[name].step_rows for part in window} == {len(ids(window, name))}


def test_a_rank_without_a_row_in_the_last_step_gets_one_that_counts_for_nothing():
    data = connected(rows(5), rows(5, "b"), batch_size=2)
    first, second = (under_trainer(data, rank, 2) for rank in range(2))
    assert len(first) == len(second) == 2
    assert len(ids(first, "forget") + ids(second, "forget")) == 5
    filler = second[-1]["forget"]
    assert not filler.mask.any()
    assert filler.step_rows == first[-1]["forget"].step_rows == 1
    assert filler.step_tokens == int(first[-1]["forget"].mask.sum())


@pytest.mark.parametrize(
    ("world", "accumulate", "max_steps", "max_epochs"), [(1, 1, -1, 3), (2, 1, 3, 9), (1, 2, 2, 9), (1, 1, 8, -1)]
)
def test_the_rows_that_a_fit_draws_are_known_before_it(world, accumulate, max_steps, max_epochs):
    """Of 40 rows a process draws what its loader yields in the epochs, or the steps, that are asked for."""
    data = connected(rows(6), rows(40, "b"), batch_size=1)
    for rank in range(world):
        epochs = [under_trainer(data, rank, world, accumulate, epoch) for epoch in range(9)]
        epochs = epochs[: max_epochs if max_epochs > 0 else None]
        batches = [batch for epoch in epochs for batch in epoch]
        expected = set(ids(batches[: max_steps * accumulate] if max_steps > 0 else batches, "retain"))
        data.trainer = stub_trainer(rank, world, accumulate, max_steps=max_steps, max_epochs=max_epochs)
        drawn = [row.example_id for row in data.drawn("retain")]
        assert drawn == sorted(expected)
        assert 0 < len(drawn) < 40


@pytest.mark.parametrize(
    "settings", [{"max_epochs": -1}, {"max_epochs": None}, {"max_epochs": 1, "overfit_batches": 1}]
)
def test_where_the_end_of_a_fit_is_not_known_it_may_draw_all_rows(settings):
    data = connected(rows(2), rows(9, "b"))
    assert len(data.drawn("retain")) == 9
    data.trainer = stub_trainer(**{"overfit_batches": 0, "max_steps": -1, **settings})
    assert len(data.drawn("retain")) == 9


# ---- other answers ----------------------------------------------------------------------------------------------


def answers(data, examples) -> list[str]:
    tokenizer = data.formatter.tokenizer
    return [tokenizer.decode(list(example.input_ids[example.start : -1])).strip() for example in examples]


def test_alternates_are_refusals_by_seed_and_row():
    data = connected(FORGET, RETAIN, seed=5, alternate="any")
    assert answers(data, data.alternates()) == [choose_refusal(5, row) for row in range(4)]
    for alternate, example in zip(data.alternates(), data.examples("forget"), strict=True):
        assert alternate.example_id == example.example_id
        assert alternate.input_ids[: alternate.start] == example.input_ids[: example.start]


def test_alternates_come_from_the_row_where_a_key_is_named():
    given = [{**row, "other": f"No {n}."} for n, row in enumerate(FORGET)]
    data = connected(given, RETAIN, alternate_key="other", alternate="any")
    assert answers(data, data.alternates()) == ["No 0.", "No 1.", "No 2.", "No 3."]
    with pytest.raises(UnlearunError, match="the forget set: 4 problems"):
        connected(FORGET, RETAIN, alternate_key="other", alternate="any")


def test_forget_batches_carry_alternates_of_their_rows_with_their_own_counts():
    data = connected(FORGET, RETAIN, batch_size=2, alternate="any")
    for rank in range(2):
        for batch in under_trainer(data, rank, 2):
            forget, alternate = batch["forget"], batch["forget"].alternate
            assert alternate.example_id.tolist() == forget.example_id.tolist()
            # one step of all four rows
            assert alternate.step_tokens == sum(example.labelled for example in data.alternates())
            assert forget.step_tokens == sum(example.labelled for example in data.examples("forget"))
            assert alternate.step_rows == 4
            assert batch["retain"].alternate is None


def test_plain_text_has_no_alternate_answer():
    with pytest.raises(UnlearunError, match="the list, row 0: plain text has no alternate answer"):
        connected([{"text": "Once upon a time."}], RETAIN, alternate="any")


def test_plain_text_is_trained_on_in_pieces():
    """17 characters and eos in pieces of ten: ten and eight tokens, all labelled but the first of each."""
    data = connected([{"text": "Once upon a time."}], [{"text": "Two men."}], max_length=10)
    assert [example.labelled for example in data.examples("forget")] == [9, 7]
    (batch,) = under_trainer(data)
    assert sorted(ids([batch], "forget")) == [0, 1]
    assert batch["forget"].step_tokens == 16


# ---- evaluation -------------------------------------------------------------------------------------------------


def evaluated(data) -> dict[str, list[int]]:
    return {
        name: sorted(int(row) for batch in loader for row in batch.example_id)
        for name, loader in data.val_dataloader().items()
    }


def test_all_sets_are_evaluated_unless_said_otherwise():
    utility = {"capitals": rows(2, "c"), "maths": rows(3, "m")}
    data = connected(FORGET, RETAIN, rows(5, "h"), utility)
    assert evaluated(data) == {
        "forget": [0, 1, 2, 3],
        "retain": list(range(6)),
        "holdout": list(range(5)),
        "capitals": [0, 1],
        "maths": [0, 1, 2],
    }
    assert list(evaluated(connected(FORGET, RETAIN, utility=rows(2, "c")))) == ["forget", "retain", "utility"]


def test_a_utility_set_cannot_take_the_name_of_another():
    with pytest.raises(UnlearunError, match="a utility set cannot be called 'forget'"):
        UnlearningDataModule(FORGET, RETAIN, utility={"forget": RETAIN})


def test_a_utility_source_may_be_a_mapping_with_a_path(files):
    data = connected(FORGET, RETAIN, utility={"path": str(files[0])})
    assert evaluated(data)["utility"] == [0, 1, 2, 3]


def test_what_is_evaluated_may_differ_from_what_is_trained():
    data = connected(FORGET, RETAIN, evaluation={"forget": rows(2, "e"), "retain": RETAIN, "more": rows(3, "m")})
    assert {name: len(found) for name, found in evaluated(data).items()} == {"forget": 2, "retain": 6, "more": 3}
    assert [e.item.question for e in data.evaluated_examples("forget")] == ["e0?", "e1?"]
    assert sorted(ids(under_trainer(data), "forget")) == [0, 1, 2, 3]  # trained on all the same
    assert data.evaluated_examples("retain") is data.examples("retain")  # the same source is read once


def test_evaluation_rows_are_a_choice_by_seed_and_it_is_said(caplog):
    def chosen(seed):
        data = connected(rows(30), rows(3, "b"), max_eval_rows=10, seed=seed)
        return [example.example_id for example in data.evaluated_examples("forget")]

    assert len(set(chosen(0))) == 10
    assert chosen(0) == chosen(0) == sorted(chosen(0))
    assert chosen(0) != chosen(1)
    data = connected(rows(30), rows(3, "b"), max_eval_rows=10)
    assert evaluated(data)["forget"] == chosen(0)
    data.setup("validate")
    assert "forget: 10 of 30 rows are evaluated (max_eval_rows)" in caplog.text
    assert "retain" not in caplog.text
    assert len(connected(rows(30), rows(3, "b"), max_eval_rows=None).evaluated_examples("forget")) == 30


def test_evaluation_batches_have_rows_of_like_length_and_their_own_size():
    data = connected(list(reversed(rows(9))), RETAIN, batch_size=1)
    batches = list(data.val_dataloader()["forget"])
    assert [len(batch) for batch in batches] == [4, 5]  # at most twice four times batch_size, evenly
    lengths = [int(length) for batch in batches for length in batch.attention_mask.sum(-1)]
    assert lengths == sorted(lengths)
    data = connected(rows(9), RETAIN, eval_batch_size=9)
    assert [len(batch) for batch in data.val_dataloader()["forget"]] == [9]
    assert [len(list(loader)) for loader in data.predict_dataloader()] == [1, 1]
    assert list(data.test_dataloader()) == ["forget", "retain"]


def test_ranks_evaluate_each_row_once():
    data = connected(rows(9), RETAIN, eval_batch_size=2)
    seen = []
    for rank in range(2):
        data.trainer = stub_trainer(rank, 2)
        batches = list(data.val_dataloader()["forget"])
        assert len(batches) == 2  # three of at most four rows, and a filler
        seen += [int(row) for batch in batches for row in batch.example_id if row >= 0]
    assert sorted(seen) == list(range(9))


# ---- connecting -------------------------------------------------------------------------------------------------


def test_without_a_tokenizer_setup_says_what_to_do():
    with pytest.raises(UnlearunError, match=r"call data\.connect\(tokenizer\)"):
        UnlearningDataModule(FORGET, RETAIN).setup("fit")


def test_the_trainers_method_is_connected_by_itself():
    method = SimpleNamespace(tokenizer=make_tokenizer(), trained_sets=("forget",), alternate="any")
    data = UnlearningDataModule(FORGET)
    data.trainer = stub_trainer(lightning_module=method, state=SimpleNamespace(fn="fit"))
    data.setup("fit")
    assert data.trained == ("forget",)
    assert len(data.alternates()) == 4
    retain_only = UnlearningDataModule(None, RETAIN)
    retain_only.trainer = stub_trainer(lightning_module=method, state=SimpleNamespace(fn="validate"))
    retain_only.setup("validate")  # nothing is trained, so nothing is missing
    assert len(retain_only.examples("retain")) == len(RETAIN)


def test_another_tokenizer_makes_other_tokens():
    data = connected(FORGET, RETAIN)
    before = data.examples("forget")[0].input_ids
    data.connect(make_tokenizer("{% for turn in messages %}{{ turn['content'] }}\n{% endfor %}"))
    assert data.examples("forget")[0].input_ids != before
    assert len(data.examples("forget")) == 4


def test_all_files_that_a_folder_lacks_are_named_at_once(tmp_path):
    hub = {name: {"path": "org/set", "name": name, "split": "train"} for name in ("forget10", "retain90")}
    with pytest.raises(UnlearunError) as error:
        UnlearningDataModule(hub["forget10"], hub["retain90"], root=str(tmp_path))
    for file in ("forget10.jsonl", "retain90.jsonl"):
        assert file in str(error.value)
    assert "2 problems" in str(error.value)


def test_a_shipped_holdout_beside_rows_of_ones_own_is_said(caplog):
    data = UnlearningDataModule(FORGET, RETAIN, holdout="pocket/holdout.json")
    data.read()
    assert "the holdout set is pocket/holdout.json, which a config brought along" in caplog.text
    caplog.clear()
    UnlearningDataModule("pocket/forget.json", "pocket/retain.json", holdout="pocket/holdout.json").read()
    assert not caplog.text


def test_places_in_a_template_that_nothing_fills_are_said(caplog):
    UnlearningDataModule(FORGET, RETAIN, prompt_template="{context}\n{question}").read()
    assert "prompt_template has {context}, which nothing fills in" in caplog.text
