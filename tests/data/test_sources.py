from __future__ import annotations

import codecs
import json
from pathlib import Path

import datasets
import pytest
from conftest import FORGET, RETAIN

from unlearun.data import read_rows
from unlearun.data.sources import under_root
from unlearun.errors import UnlearunError

LINES = "\n".join(json.dumps(row) for row in FORGET)


def values(source):
    return [dict(row.values) for row in read_rows(source, "the forget set")]


def refusal(source) -> str:
    with pytest.raises(UnlearunError) as caught:
        read_rows(source, "the forget set")
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    def _write(content: str | bytes, name: str = "rows.json") -> str:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(file)

    return _write


# ---- what a source may be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(FORGET),
        json.dumps(FORGET, indent=2),
        "\n \r\n" + json.dumps(FORGET, indent=2).replace("\n", "\r\n") + "\r\n",
        LINES,
        LINES + "\n",
        "\n" + LINES.replace("\n", "\r\n\r\n"),
        codecs.BOM_UTF8 + json.dumps(FORGET).encode(),
        codecs.BOM_UTF8 + LINES.encode(),
    ],
    ids=["list", "indented", "crlf list", "lines", "newline at the end", "crlf lines", "BOM list", "BOM lines"],
)
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_a_file_may_be_a_list_or_one_object_a_line_whatever_its_name(write, content, name):
    assert values(write(content, name)) == FORGET


def test_letters_beyond_ascii_arrive_whole(write):
    row = {"question": "Où ?", "answer": "À Zürich\u2028日本 😀"}
    assert values(write(json.dumps([row], ensure_ascii=False))) == [row]
    assert values(write(json.dumps(row, ensure_ascii=False), "rows.jsonl")) == [row]


def test_a_row_knows_its_line(files):
    """With indent 1 an object of two keys takes four lines: objects begin in lines 2, 6, 10, 14."""
    forget, retain = files
    assert [row.origin for row in read_rows(str(forget), "")] == [f"{forget}, line {n}" for n in (2, 6, 10, 14)]
    assert [row.origin for row in read_rows(str(retain), "")] == [f"{retain}, line {n}" for n in range(1, 7)]


def test_a_mapping_may_pick_the_rows_of_a_split(write):
    rows = [{"split": "a", "n": 1}, {"split": "b", "n": 2}, {"split": "a", "n": 3}, {"n": 4}]
    path = write(json.dumps(rows))
    assert values({"path": path}) == rows
    assert [row["n"] for row in values({"path": path, "split": "a"})] == [1, 3]
    message = refusal({"path": path, "split": "c"})
    assert "no row" in message
    assert "'c'; found 'a', 'b'" in message


def test_python_may_hand_over_a_list_or_a_dataset():
    assert values(FORGET) == FORGET
    assert values(datasets.Dataset.from_list(FORGET)) == FORGET
    assert [row.origin for row in read_rows(FORGET, "")][:2] == ["the list, row 0", "the list, row 1"]
    assert read_rows(datasets.Dataset.from_list(FORGET), "")[3].origin == "the Dataset, row 3"


def test_a_dataset_dict_needs_a_split():
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(FORGET), test=datasets.Dataset.from_list(RETAIN))
    assert "choose one of its splits" in refusal(splits)
    assert values(splits["test"]) == RETAIN


def test_a_shipped_file_is_found_by_its_short_name_unless_one_lies_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = values("pocket/forget.json")
    assert len(shipped) > 10
    assert {"question", "answer"} <= shipped[0].keys()
    (tmp_path / "pocket").mkdir()
    (tmp_path / "pocket/forget.json").write_text(LINES)
    assert values("pocket/forget.json") == FORGET


def test_a_hub_dataset_gets_name_split_and_revision(monkeypatch):
    calls = []

    def load_dataset(path, **settings):
        calls.append((path, settings))
        return datasets.Dataset.from_list(FORGET)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert values("locuslab/TOFU") == FORGET
    values({"path": "locuslab/TOFU", "name": "forget10", "split": "test", "revision": "abc"})
    assert calls == [
        ("locuslab/TOFU", {"name": None, "split": "train", "revision": None}),
        ("locuslab/TOFU", {"name": "forget10", "split": "test", "revision": "abc"}),
    ]


def test_a_hub_dataset_out_of_reach_is_our_error(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)  # both read the variable once, when imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal("nobody/no-such-rows")
    assert message.startswith("the forget set: 'nobody/no-such-rows' is no file here")
    assert "check the id, name, split and the network" in message


# ---- what is wrong with it --------------------------------------------------------------------------------------


def test_a_missing_file_suggests_its_neighbour(files):
    forget, _ = files
    path = forget.with_name("forgt.json")
    assert refusal(str(path)) == f"the forget set: there is no file {path}. Did you mean 'forget.json'?"


@pytest.mark.parametrize("path", ["nowhere.json", "no/such/folder/rows.txt", "./rows", "/nowhere/rows", "no.jsonl"])
def test_what_looks_like_a_file_is_never_looked_for_on_the_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    assert refusal(path) == f"the forget set: there is no file {path}."


def test_a_folder_is_no_file(tmp_path):
    assert refusal(str(tmp_path)) == f"the forget set: {tmp_path} is a folder; name a .json or .jsonl file in it"


def test_an_unknown_key_of_a_source_suggests_the_right_one(write):
    message = refusal({"path": write(LINES), "splt": "train"})
    assert "unknown key 'splt'. Did you mean 'split'?" in message
    assert "path, name, split, revision" in message
    assert "no path" in refusal({"split": "train"})


@pytest.mark.parametrize("source", [3, None, [3], ["question"], [[FORGET[0]]]], ids=repr)
def test_python_objects_of_the_wrong_kind_are_named(source):
    found = type(source[0]).__name__ if isinstance(source, list) else type(source).__name__
    assert found in refusal(source)


@pytest.mark.parametrize("content", ["", " \n\t\n", codecs.BOM_UTF8], ids=["empty", "blank", "BOM alone"])
def test_an_empty_file_says_what_was_expected(write, content):
    assert "is empty; expected a list of objects, or one object a line" in refusal(write(content))


@pytest.mark.parametrize("empty", [[], "file"])
def test_no_rows_is_an_error(write, empty):
    assert "holds no rows; expected at least one" in refusal(write("[ ]") if empty == "file" else empty)


def test_broken_json_in_a_list_names_the_line(write):
    message = refusal(write('[\n {"question": "a",\n  "answer" "b"}\n]'))
    assert "1 problem\n" in message
    assert "line 3: broken JSON" in message


def test_broken_lines_are_all_named(write):
    message = refusal(write('{"a": 1}\n{"a": 1\n\n{"a": 2}\nnonsense', "rows.jsonl"))
    assert "2 problems" in message
    assert "line 2: broken JSON" in message
    assert "line 5: broken JSON" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('[\n{"a": 1}\n{"a": 2}]', "line 3: expected ',' or ']' after an object, found '{\"a\": 2}]'"),
        ('[\n{"a": 1},\n]', "line 3: broken JSON"),
        ('[{"a": 1},\n{"a": 2}', "line 2: expected ',' or ']' after an object, found ''"),
        ('[{"a": 1}]\n\n{"a": 2}', "line 3: text after the end of the list"),
        ("[" * 100_000, "line 1: broken JSON (nested too deep)"),
    ],
    ids=["no comma", "comma at the end", "no end", "list and lines", "deep"],
)
def test_a_list_that_goes_wrong_says_where(write, content, problem):
    assert problem in refusal(write(content))


@pytest.mark.parametrize(("content", "lines"), [('[{},\n3,\n"x"]', (2, 3)), ('{}\n[1]\n"x"\n', (2, 3))])
def test_rows_that_are_no_objects_are_all_named(write, content, lines):
    message = refusal(write(content))
    assert "2 problems" in message
    for line in lines:
        assert f"line {line}: expected an object with keys, found" in message


def test_of_many_problems_the_first_ten_and_a_count_are_shown(write):
    message = refusal(write("\n".join(["oops"] * 13), "rows.jsonl"))
    assert "13 problems" in message
    assert "line 10:" in message
    assert "line 11:" not in message
    assert message.endswith("... and 3 more")


def test_text_that_is_not_utf8_names_the_line(write):
    message = refusal(write('{"a": 1}\n{"a": "Zürich"}'.encode("latin-1"), "rows.jsonl"))
    assert "line 2: not UTF-8 text; save the file as UTF-8" in message


def test_a_file_that_may_not_be_read_is_our_error(write, monkeypatch):
    def read_bytes(file):
        raise PermissionError(13, "Permission denied")  # chmod would not stop root

    path = write(LINES)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert refusal(path) == f"{path} cannot be read: Permission denied"


def test_numbers_of_too_many_digits_and_deep_nesting_are_told_apart(write):
    assert "a number of too many digits" in refusal(write('{"n": ' + "9" * 5000 + "}", "rows.jsonl"))
    assert "nested too deep" in refusal(write("[" * 100_000))


def test_a_split_of_rows_that_have_none_is_explained(write):
    message = refusal({"path": write('[{"n": 1}]'), "split": "c"})
    assert "found no row with a key 'split'" in message


def test_a_name_that_no_disk_can_hold_is_no_file():
    assert "there is no file 'aaa" in refusal("a" * 5000)


# ---- a folder in the place of the hub ---------------------------------------------------------------------------


def test_a_folder_stands_in_for_the_hub(tmp_path):
    for name in ("forget10.json", "raw/holdout.jsonl", "raw.json", "train.json", "TOFU.jsonl", "mine.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}))
    for source, file in (
        ({"path": "locuslab/TOFU", "name": "forget10", "split": "train"}, "forget10.json"),
        ({"path": "muse-bench/MUSE-News", "name": "raw", "split": "holdout"}, "raw/holdout.jsonl"),
        ({"path": "muse-bench/MUSE-News", "name": "raw", "split": "forget"}, "raw.json"),
        ({"path": "locuslab/TOFU", "split": "train"}, "train.json"),
        ({"path": "locuslab/TOFU", "split": "test"}, "TOFU.jsonl"),
        ("locuslab/TOFU", "TOFU.jsonl"),
        ("mine.json", "mine.json"),
    ):
        assert values(under_root(source, tmp_path, "the forget set")) == [{"text": file}]


def test_what_is_no_dataset_of_the_hub_is_not_looked_for_elsewhere(tmp_path):
    for source in ("pocket/forget.json", FORGET, {"name": "no path"}):
        assert under_root(source, tmp_path, "the forget set") == source


def test_a_folder_without_the_file_is_named_with_what_was_looked_for(tmp_path):
    source = {"path": "locuslab/TOFU", "name": "forget10", "split": "train"}
    wanted = r"forget10/train\.jsonl, forget10/train\.json, forget10\.jsonl, forget10\.json"
    with pytest.raises(UnlearunError, match=f"the forget set: data.root .* has none of {wanted}; put"):
        under_root(source, tmp_path, "the forget set")
    with pytest.raises(UnlearunError, match="'nowhere' is no folder"):
        under_root(source, "nowhere", "the forget set")


def test_the_root_takes_no_file_that_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    for place, answer in ((tmp_path, "here"), (tmp_path / "root", "there")):
        (place / "f.json").write_text(json.dumps([{"question": "?", "answer": answer}]))
    (row,) = read_rows(under_root("f.json", tmp_path / "root", "the forget set"), "the forget set")
    assert row.values["answer"] == "here"


def test_the_root_keeps_the_split_of_a_file_whose_rows_tell_theirs(tmp_path):
    rows = [{"text": name, "split": name} for name in ("forget", "retain1")]
    (tmp_path / "raw.json").write_text(json.dumps(rows))
    (tmp_path / "forget10.json").write_text(json.dumps([{"text": "whole"}]))
    source = {"path": "a/b", "name": "raw", "split": "retain1"}
    (row,) = read_rows(under_root(source, tmp_path, "the retain set"), "the retain set")
    assert row.values["text"] == "retain1"
    (row,) = read_rows(under_root({**source, "name": "forget10"}, tmp_path, "the retain set"), "the retain set")
    assert row.values["text"] == "whole"
    with pytest.raises(UnlearunError, match=r"unknown key 'splt'. Did you mean 'split'"):
        read_rows(under_root({"path": "a/b", "name": "raw", "splt": "x"}, tmp_path, "the set"), "the set")


def test_rows_of_a_list_in_one_line_are_told_apart(write):
    file = write('[{"a": 1}, {"a": 2}, 3]')
    with pytest.raises(UnlearunError, match="line 1, row 2: expected an object with keys, found 3"):
        read_rows(str(file), "")
    file = write('[{"a": 1}, {"a": 2},\n{"a": 3}]')
    assert [row.origin for row in read_rows(str(file), "")] == [
        f"{file}, {place}" for place in ("line 1, row 0", "line 1, row 1", "line 2")
    ]
