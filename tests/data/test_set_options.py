"""What a source says of its own set, against what the datamodule says of all."""

from __future__ import annotations

import json
from datetime import date

import pytest
import yaml
from conftest import CHARACTERS, FORGET, RETAIN, make_tokenizer

from unlearun.__main__ import main
from unlearun.cli import UnlearunCLI
from unlearun.data import UnlearningDataModule, expected_text, preview
from unlearun.data.set_options import SetOptions, split_source
from unlearun.data.sources import OPTIONS
from unlearun.errors import UnlearunError

END = len(CHARACTERS)


@pytest.fixture
def folder(tmp_path):
    rows = {
        "forget": FORGET,
        "retain": RETAIN,
        "named": [{"prompt": "Who?", "gt": "Anna."}],
        "shots": [{"prompt": "One?", "gt": "Yes."}],
        "texts": [{"text": "abc"}, {"text": "defgh"}],
    }
    for name, values in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    return tmp_path


def spelt(data: UnlearningDataModule, name: str) -> list[str]:
    """The rows of a set; [ before the labelled tokens, $ for the end."""
    characters = [*CHARACTERS, "$"]
    return [
        "".join(characters[i] for i in row.input_ids[: row.start])
        + "["
        + "".join(characters[i] for i in row.input_ids[row.start :])
        for row in data.evaluated_examples(name)
    ]


def make(folder, **sets) -> UnlearningDataModule:
    paths = {name: str(folder / f"{name}.json") for name in ("forget", "retain")}
    data = UnlearningDataModule(**paths, evaluation=sets, chat_template=False, max_new_tokens=9)
    data.connect(make_tokenizer())
    return data


def test_a_set_has_keys_template_shots_and_length_of_its_own(folder):
    keys = {"question_key": "prompt", "answer_key": "gt"}
    path = str(folder / "named.json")
    data = make(
        folder,
        forget=str(folder / "forget.json"),
        forget_plain={"path": path, **keys},
        forget_asked={"path": path, **keys, "prompt_template": "Q: {question} A:", "shots": str(folder / "shots.json")},
        forget_continued={"path": path, **keys, "continues": True, "max_new_tokens": 2},
    )
    assert spelt(data, "forget_plain") == ["Question: Who?\nAnswer:[ Anna.$"]
    assert spelt(data, "forget_asked") == ["Q: One? A: Yes.\n\nQ: Who? A:[ Anna.$"]
    assert spelt(data, "forget_continued") == ["Who?[Anna.$"]
    assert spelt(data, "forget")[0].startswith(f"Question: {FORGET[0]['question']}\nAnswer:[ ")
    assert [data.max_new_tokens(name) for name in data.evaluated] == [9, 9, 9, 2]
    (batch,) = data.val_dataloader()["forget_continued"]
    assert batch.texts == ("Anna.",)
    assert "Q: Who? A:[[" in preview(data)


def test_a_set_may_have_longer_rows_than_others(folder, caplog):
    """Long questions beside short pieces of text: neither is cut for the other, and the record tells."""
    keys = {"question_key": "prompt", "answer_key": "gt"}
    path, prompt = str(folder / "named.json"), len("Question: Who?\nAnswer:")
    data = make(
        folder,
        forget_whole={"path": path, **keys},
        forget_cut={"path": path, **keys, "max_length": prompt + 2},
    )
    assert spelt(data, "forget_whole") == ["Question: Who?\nAnswer:[ Anna.$"]
    assert spelt(data, "forget_cut") == ["Question: Who?\nAnswer:[ A"]
    assert f"forget_cut: 1 of 1 answers are longer than max_length={prompt + 2} tokens" in caplog.text
    assert data.describe()["sets"]["forget_cut"]["template"]["max_length"] == prompt + 2
    assert "template" not in data.describe()["sets"]["forget_whole"]


def test_an_answer_may_be_begun(folder):
    """What is given away stands before the bracket, and an answer keeps one token and its end."""
    path, keys = str(folder / "named.json"), {"question_key": "prompt", "answer_key": "gt"}
    named = {"path": path, **keys}
    data = make(
        folder,
        forget_asked={**named, "question_template": "Tell me: {question} Now."},
        forget_shot={**named, "question_template": "Tell me: {question}", "shots": str(folder / "shots.json")},
        forget_prefilled={**named, "prefill": "Sure:"},
        forget_lines={**named, "prefill": "Sure:\n"},
        forget_two={**named, "given_tokens": 2},
        forget_nine={**named, "given_tokens": 9},
        forget_both={**named, "prefill": "So", "given_tokens": 1},
        forget_text={"path": str(folder / "texts.json"), "given_tokens": 3},
    )
    assert spelt(data, "forget_asked") == ["Question: Tell me: Who? Now.\nAnswer:[ Anna.$"]
    assert spelt(data, "forget_shot") == ["Question: One?\nAnswer: Yes.\n\nQuestion: Tell me: Who?\nAnswer:[ Anna.$"]
    assert spelt(data, "forget_prefilled") == ["Question: Who?\nAnswer: Sure:[ Anna.$"]
    assert spelt(data, "forget_lines") == ["Question: Who?\nAnswer: Sure:\n[Anna.$"]
    assert spelt(data, "forget_two") == ["Question: Who?\nAnswer: A[nna.$"]
    assert spelt(data, "forget_nine") == ["Question: Who?\nAnswer: Anna[.$"]
    assert spelt(data, "forget_both") == ["Question: Who?\nAnswer: So [Anna.$"]
    assert spelt(data, "forget_text") == ["abc[$", "defg[h$"]
    (batch,) = data.val_dataloader()["forget_two"]
    assert batch.texts == ("nna.",)
    (example,) = data.evaluated_examples("forget_two")
    assert expected_text(data.formatter_of("forget_two"), example, 9) == "nna."
    (example,) = data.evaluated_examples("forget_prefilled")
    assert expected_text(data.formatter_of("forget_prefilled"), example, 9) == "Anna."
    sets = data.describe()["sets"]
    assert sets["forget_both"]["template"] == {**data.describe()["template"], "prefill": "So", "given": 1}
    assert sets["forget_asked"]["template"]["question"] == "Tell me: {question} Now."


def test_a_chat_may_be_begun():
    tokenizer = make_tokenizer("{% for turn in messages %}{{ turn['content'] }}\n{% endfor %}")
    data = UnlearningDataModule(FORGET, RETAIN, evaluation={"forget": {"path": "x", "prefill": "Sure:"}})
    data.sources["evaluation forget"] = [{"question": "Who?", "answer": "Anna."}]
    data.connect(tokenizer)
    assert spelt(data, "forget") == ["Who?\nSure:[ Anna.$"]


def test_the_fingerprint_says_how_a_set_of_its_own_was_asked(folder):
    rows = {"path": str(folder / "named.json"), "question_key": "prompt", "answer_key": "gt"}
    asked = {**rows, "shots": str(folder / "shots.json")}
    data = make(folder, retain=str(folder / "retain.json"), a=rows, b={**rows, "continues": True}, c=asked)
    described = data.describe()
    sets = described["sets"]
    assert "template" not in sets["retain"]
    assert "template" not in sets["a"]
    assert sets["b"]["template"] == {**described["template"], "prompt": "{question}"}
    assert {**sets["c"]["template"], "shots": None} == {**described["template"], "shots": None}
    assert sets["a"]["source"] == {"path": str(folder / "named.json")}
    (folder / "shots.json").write_text(json.dumps([{"prompt": "One?", "gt": "No."}]))
    again = make(folder, c=asked).describe()["sets"]["c"]
    assert again["template"] != sets["c"]["template"]


def test_texts_are_joined_with_an_empty_line_and_then_cut(folder):
    """abc, two line ends, defgh and the end are eleven tokens: in rows of six, the last with what is left."""
    texts = {"path": str(folder / "texts.json"), "joined": True}
    data = UnlearningDataModule(forget=texts, retain=RETAIN, max_length=60)
    data.connect(make_tokenizer())
    assert spelt(data, "forget") == ["a[bc\n\ndefgh$"]
    data = UnlearningDataModule(forget=texts, evaluation={}, max_length=6)
    data.connect(make_tokenizer(), ("forget",))
    assert [len(row.input_ids) for row in data.examples("forget")] == [6, 5]


def test_shots_are_found_under_the_root(folder):
    source = {"path": "some/hub", "name": "named", "question_key": "prompt", "answer_key": "gt"}
    source["shots"] = {"path": "some/hub", "split": "shots"}
    data = UnlearningDataModule(forget=FORGET, retain=RETAIN, evaluation={"facts": source}, root=str(folder))
    data.connect(make_tokenizer())
    assert spelt(data, "facts") == ["Question: One?\nAnswer: Yes.\n\nQuestion: Who?\nAnswer:[ Anna.$"]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("max_new_tokens", 0, "max_new_tokens is 0; expected a number of 1 or more"),
        ("max_new_tokens", True, "max_new_tokens is true; expected a number of 1 or more"),
        ("joined", "yes", "joined is 'yes'; expected true or false"),
        ("question_key", 3, "question_key is 3; expected text"),
        ("system_prompt", 3, "system_prompt is 3; expected text or null"),
        ("shots", 3, "shots is 3; expected a source, as that of the set"),
        ("prompt_template", "Q:", "prompt_template is 'Q:'; it must hold {question}"),
        ("question_template", "Q:", "question_template is 'Q:'; it must hold {question}"),
        ("given_tokens", 0, "given_tokens is 0; expected a number of 1 or more"),
    ],
)
def test_a_wrong_value_is_said_with_its_set(option, value, said):
    with pytest.raises(UnlearunError) as error:
        split_source({"path": "a.json", option: value}, SetOptions(), "the forget set")
    assert str(error.value).lower() == f"the forget set: {said}".lower()


def test_every_option_changes_something():
    values = {"min_characters": 3, "max_new_tokens": 3, "joined": True, "continues": True, "chat_template": False}
    values |= {"prompt_template": "{question}!", "shots": "a.json", "chat_template_kwargs": {"a": 1}}
    values |= {"question_template": "{question}!", "given_tokens": 2, "max_length": 9}
    for option in OPTIONS:
        source, options = split_source({"path": "a", option: values.get(option, "x")}, SetOptions(), "it")
        assert options != SetOptions(), option
        assert source == {"path": "a"}


@pytest.mark.parametrize(
    "more",
    [
        {"prompt_template": "{question}"},
        {"question_template": "{question}!"},
        {"chat_template": True},
        {"prefill": "So:"},
        {"shots": "a.json"},
    ],
)
def test_what_continues_has_no_template(more):
    said = "continues: true takes the prompt as it is; leave out templates, prefill and shots"
    with pytest.raises(UnlearunError, match=said):
        split_source({"path": "a.json", "continues": True, **more}, SetOptions(), "the forget set")


def test_questions_are_not_joined_and_texts_are_no_shots(folder):
    with pytest.raises(UnlearunError, match=r"row 0 has a question; joined: true takes plain texts alone"):
        UnlearningDataModule(forget={"path": str(folder / "forget.json"), "joined": True}, retain=RETAIN).read()
    source = {"path": str(folder / "forget.json"), "shots": str(folder / "texts.json")}
    with pytest.raises(UnlearunError, match=r"the shots of the forget set: .*texts.json.* has no question"):
        UnlearningDataModule(forget=source, retain=RETAIN).read()


def test_a_misspelt_option_gets_a_hint(folder):
    with pytest.raises(UnlearunError, match=r"unknown key 'max_new_token'. Did you mean 'max_new_tokens'"):
        UnlearningDataModule(forget={"path": str(folder / "forget.json"), "max_new_token": 3}, retain=RETAIN).read()


def test_values_of_a_chat_template_may_be_lists_and_dates(folder):
    """YAML reads 2025-04-10 as a date, and a list has no hash."""
    values = {"names": ["a"], "date_string": date(2025, 4, 10)}
    tokenizer = make_tokenizer("{% for turn in messages %}{{ turn['content'] }}{% endfor %}")
    data = UnlearningDataModule(FORGET, RETAIN, chat_template_kwargs=values)
    data.connect(tokenizer)
    described = json.loads(json.dumps(data.describe()["template"]))
    assert described["chat_values"] == {"names": "['a']", "date_string": "2025-04-10"}


def test_text_of_a_source_stays_text_on_its_way_through_a_config(folder, capsys, monkeypatch):
    """A text with a colon, or one that YAML could take for something else, is what it is; numbers need no quotes."""
    monkeypatch.chdir(folder)
    own = {
        "path": "forget.json",
        "prompt_template": "Q: {question}\nA:",
        "prefill": "yes",
        "system_prompt": "Be: brief",
    }
    given = {"evaluation": {"forget": own}, "retain": [{"question": "who: me?", "answer": "42"}]}
    (folder / "x.yaml").write_text(yaml.safe_dump({"data": given}))
    command = ["--model", "SimNPO", "--model.model", "pocket", "--data.forget", "forget.json", "--data.holdout", "null"]
    cli = UnlearunCLI([*command, "--data.utility", "null", "--config", "x.yaml"], run=False)
    options = cli.datamodule.options["evaluation forget"]
    assert (options.prompt_template, options.prefill, options.system_prompt) == (
        "Q: {question}\nA:",
        "yes",
        "Be: brief",
    )
    assert cli.datamodule.sources["retain"] == given["retain"]
    more = ["--data.forget.path", "forget.json", "--data.forget.max_new_tokens", "8", "--data.forget.joined", "false"]
    assert main(["preview", *command[:4], *more, "--data.retain", "retain.json"]) == 0
    colon = [*more[:2], "--data.forget.prompt_template", "Q: {question}\nA:"]
    assert main(["preview", *command[:4], *colon, "--data.retain", "retain.json"]) == 2
    assert "on a command line it cannot hold a colon, so put it into a file: --config FILE" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tokenize", "messages", 3])
def test_what_a_template_may_not_be_given_is_said(name):
    with pytest.raises(UnlearunError, match=f"chat_template_kwargs has {name!r}, which is no value that a template"):
        split_source({"path": "a.json", "chat_template_kwargs": {name: "x"}}, SetOptions(), "the forget set")


def test_a_template_that_cannot_be_filled_in_is_said():
    tokenizer = make_tokenizer("{{ raise_exception('System role not supported') }}")
    data = UnlearningDataModule(FORGET, RETAIN, system_prompt="Be brief.")
    with pytest.raises(
        UnlearunError, match=r"chat template cannot be filled in .*System role.* leave system_prompt out"
    ):
        data.connect(tokenizer)


def test_null_takes_back_what_an_earlier_config_said():
    source = {"path": "a.json", "shots": None, "max_new_tokens": None, "prefill": None, "system_prompt": None}
    assert split_source(source, SetOptions(system_prompt="Be."), "it") == ({"path": "a.json"}, SetOptions())
