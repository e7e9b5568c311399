from __future__ import annotations

import copy
import os
from pathlib import Path

import caches
import pytest
from caches import CUT, connect, contents
from conftest import FORGET, RETAIN, make_tokenizer
from processes import in_two_processes
from tokenizers import AddedToken
from transformers import PreTrainedTokenizer

from unlearun.data import Formatter, Item, UnlearningDataModule
from unlearun.data.cache import TokenCache, cache_folder
from unlearun.errors import UnlearunError

CHAT = "{% for turn in messages %}{{ turn['content'] }}\n{% endfor %}"
ITEMS = [Item(f"row {n}", row["question"], row["answer"]) for n, row in enumerate(FORGET)]


@pytest.fixture(autouse=True)
def all_sets_are_worth_it(monkeypatch):
    monkeypatch.setattr("unlearun.data.cache.WORTH", 0)


def stored(folder: Path) -> list[Path]:
    return sorted(one for one in folder.rglob("*") if one.is_file())


# ---- what is read back ------------------------------------------------------------------------------------------


def test_a_second_start_reads_what_the_first_has_made(tmp_path, caplog):
    """Three sets: forget, retain and the alternate answers. The warning about what was cut is the same again."""
    first, made = connect(str(tmp_path))
    warnings = list(caplog.messages)
    caplog.clear()
    second, made_again = connect(str(tmp_path))
    assert (made, made_again) == (3, 0)
    assert contents(first) == contents(second)
    assert caplog.messages == warnings
    assert any(f"forget: 2 of 4 answers are longer than max_length={CUT} tokens" in message for message in warnings)
    assert len(stored(tmp_path)) == 3


def test_texts_in_pieces_come_back_too(tmp_path):
    texts = [{"text": "A long text about a town by the sea, in many pieces."}, {"text": "Short."}]
    rows = []
    for _ in range(2):
        data = UnlearningDataModule(None, texts, max_length=10, cache=str(tmp_path))
        data.connect(make_tokenizer(), ("retain",))
        rows.append([(e.example_id, list(e.input_ids), e.start, e.ends, e.item) for e in data.examples("retain")])
    assert rows[0] == rows[1]
    assert len(rows[0]) > 4


def test_rows_that_cannot_be_kept_are_the_same_error_again(tmp_path):
    messages = []
    for _ in range(2):
        with pytest.raises(UnlearunError) as caught:
            connect(str(tmp_path), truncation="error")
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "the forget set: 2 problems\n  the list, row 0: prompt and answer have 61 tokens" in messages[0]
    assert not stored(tmp_path)


def test_a_cut_that_was_allowed_once_is_an_error_where_it_is_not(tmp_path):
    connect(str(tmp_path))
    with pytest.raises(UnlearunError, match="the forget set: 2 problems"):
        connect(str(tmp_path), truncation="error")


# ---- what the name of a file says -------------------------------------------------------------------------------


def with_vocabulary(change):
    tokenizer = make_tokenizer()
    change(tokenizer)
    return tokenizer


def swap_two(tokenizer):
    vocabulary = tokenizer.get_vocab()
    text = tokenizer.backend_tokenizer.to_str()
    a, b = vocabulary["a"], vocabulary["b"]
    swapped = text.replace(f'"a":{a}', '"a":@').replace(f'"b":{b}', f'"b":{a}').replace('"a":@', f'"a":{b}')
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(swapped)


OTHERS = {
    "another length": (Formatter(make_tokenizer(), 40), ITEMS),
    "another template": (Formatter(make_tokenizer(), prompt="Q: {question}"), ITEMS),
    "long answers refused": (Formatter(make_tokenizer(), refuse_long=True), ITEMS),
    "a chat template": (Formatter(make_tokenizer(CHAT)), ITEMS),
    "another chat template": (Formatter(make_tokenizer(f"{CHAT} ")), ITEMS),
    "a system prompt": (Formatter(make_tokenizer(CHAT), system="Be brief."), ITEMS),
    "one more token": (
        Formatter(with_vocabulary(lambda one: one.add_tokens([AddedToken("live", normalized=False)]))),
        ITEMS,
    ),
    "two tokens swapped": (Formatter(with_vocabulary(swap_two)), ITEMS),
    "another end": (Formatter(with_vocabulary(lambda one: setattr(one, "eos_token", "."))), ITEMS),
    "another order": (Formatter(make_tokenizer()), ITEMS[::-1]),
    "a row less": (Formatter(make_tokenizer()), ITEMS[:-1]),
    "a letter moved": (
        Formatter(make_tokenizer()),
        [Item("", "Where does Anna live?I", "n Oslo, by the sea."), *ITEMS[1:]],
    ),
    "a text, not a question": (Formatter(make_tokenizer()), [Item("", None, ITEMS[0].answer), *ITEMS[1:]]),
}


def test_whatever_changes_the_rows_changes_the_name(tmp_path):
    named = {"as it was": (Formatter(make_tokenizer()), ITEMS), **OTHERS}
    keys = {name: TokenCache(formatter, tmp_path)._key(items) for name, (formatter, items) in named.items()}
    for name, key in keys.items():
        assert [other for other in keys if keys[other] == key] == [name]


def test_where_rows_stand_does_not_change_the_name(tmp_path):
    """Nor does what was tokenised before, and how."""
    tokenizer = make_tokenizer()
    tokenizer(["a", "bb"], padding=True, truncation=True, max_length=1)
    moved = [Item("elsewhere", item.question, item.answer) for item in ITEMS]
    assert TokenCache(Formatter(tokenizer), tmp_path)._key(moved) == (
        TokenCache(Formatter(make_tokenizer()), tmp_path)._key(ITEMS)
    )


def test_a_template_that_writes_the_date_gives_new_rows_on_another_day(tmp_path):
    keys = []
    for day in ("Monday", "Tuesday"):
        tokenizer = make_tokenizer(f"{{{{ day }}}} {CHAT}")
        render = tokenizer.apply_chat_template
        tokenizer.apply_chat_template = lambda *args, day=day, render=render, **more: render(*args, day=day, **more)
        keys.append(TokenCache(Formatter(tokenizer), tmp_path)._key(ITEMS))
    assert keys[0] != keys[1]


# ---- bad luck ---------------------------------------------------------------------------------------------------


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-5])


def change_a_token(file):
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def other_text(file):
    file.write_text("nothing of the kind")


def empty(file):
    file.write_bytes(b"")


def no_metadata(file):
    from safetensors.numpy import load_file, save_file

    save_file(load_file(file), file)


def folder(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("harm", [cut_short, change_a_token, other_text, empty, no_metadata])
def test_a_broken_file_is_made_anew(harm, tmp_path):
    first, _ = connect(str(tmp_path))
    for file in stored(tmp_path):
        harm(file)
    second, made = connect(str(tmp_path))
    assert made == 3
    assert contents(first) == contents(second)
    assert connect(str(tmp_path))[1] == 0  # it is whole again


def test_where_nothing_can_be_written_a_warning_says_what_to_do(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    data, made = connect(str(tmp_path / "file"))
    assert made == 3
    assert len(data.examples("forget")) == len(FORGET)
    assert "switch this off with --data.cache false" in caplog.text


def test_a_folder_in_the_place_of_a_file_is_left_alone(tmp_path, caplog):
    connect(str(tmp_path))
    for file in stored(tmp_path):
        folder(file)
    assert connect(str(tmp_path))[1] == 3
    assert "token ids cannot be kept" in caplog.text
    assert not stored(tmp_path)  # no half-written one either


def test_two_processes_have_the_same_rows(tmp_path):
    """The second finds what the first has written; both at once write the same, and leave whole files alone."""
    first, second = in_two_processes(caches.share, str(tmp_path))
    assert first[0][1] == 3
    assert first[1][1] <= 3  # on a busy machine it comes late, and finds what the other has written
    assert second[0][1] == 0
    expected = contents(connect(False)[0])
    assert all(rows == expected for rows, _ in [*first, *second])
    assert [file.suffix for file in stored(tmp_path)] == [".safetensors"] * 6
    assert connect(str(tmp_path / "at once"))[1] == 0


# ---- where ------------------------------------------------------------------------------------------------------


def test_the_folder_is_the_settings_the_variables_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("UNLEARUN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder(True) == tmp_path / ".cache" / "unlearun"
    assert cache_folder("~/mine") == tmp_path / "mine"
    assert cache_folder(False) is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says is to be passed over
    assert cache_folder(True) == tmp_path / ".cache" / "unlearun"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder(True) == Path("/caches/unlearun")
    monkeypatch.setenv("UNLEARUN_CACHE", "/ours")
    assert (cache_folder(True), cache_folder("/mine"), cache_folder(False)) == (Path("/ours"), Path("/mine"), None)
    for word in ("off", "0", "False"):
        monkeypatch.setenv("UNLEARUN_CACHE", word)
        assert cache_folder(True) is None
        assert cache_folder(word) is None


def test_small_sets_leave_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("UNLEARUN_CACHE", str(tmp_path))
    UnlearningDataModule(FORGET, RETAIN).connect(make_tokenizer())
    assert not os.listdir(tmp_path)


def test_a_large_set_is_kept_unless_said_otherwise(monkeypatch, tmp_path):
    """Two million characters in ten texts."""
    monkeypatch.undo()
    monkeypatch.setenv("UNLEARUN_CACHE", str(tmp_path))
    texts = [{"text": "some text " * 20_000}] * 10
    for cache, files in ((False, 0), (True, 1)):
        UnlearningDataModule(None, texts, cache=cache).connect(make_tokenizer(), ("retain",))
        assert len(stored(tmp_path)) == files


class Slow(PreTrainedTokenizer):
    """A tokenizer written in Python, of one token a byte."""

    vocab_size = 257

    def get_vocab(self):
        return {str(i): i for i in range(256)}

    def _tokenize(self, text, **_):
        return [str(byte) for byte in text.encode()]

    def _convert_token_to_id(self, token):
        return int(token)

    def _convert_id_to_token(self, index):
        return str(index)


def test_a_tokenizer_in_python_makes_its_rows_anew_each_time(tmp_path):
    tokenizer = Slow()
    tokenizer.add_special_tokens({"eos_token": "<eos>"})
    table = TokenCache(Formatter(tokenizer), tmp_path).encode(ITEMS, "here")
    assert table.examples(ITEMS)[0].input_ids[:9] == list(b"Question:")
    assert not stored(tmp_path)


def test_the_cache_may_differ_between_a_run_and_the_command_that_goes_on():
    from unlearun.runs.resume import differences

    there = {"data": {"cache": True, "seed": 0}}
    here = copy.deepcopy(there)
    here["data"]["cache"] = "/elsewhere"
    assert differences(there, here) == []
