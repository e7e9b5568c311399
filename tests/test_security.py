"""What comes from others, as weights, checkpoints, configs or rows, is read and never run."""

from __future__ import annotations

import ast
import json
import logging
import os
import pickle
import re
import time
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
import torch
from conftest import RETAIN, make_tokenizer, random_batch
from mistakes import Place, make_model
from torch.distributed import checkpoint as distributed_checkpoint
from torch.distributed.checkpoint.api import CheckpointException

import unlearun
from unlearun.__main__ import main
from unlearun.data import Formatter, UnlearningDataModule, preview
from unlearun.data.formatting import Example
from unlearun.data.rows import Item
from unlearun.errors import UnlearunError
from unlearun.models import AlternateSettings, CachedLogprobs, own_alternates, read_alternates, write_alternates
from unlearun.models.export import CHECKPOINT_KEY, read_checkpoint
from unlearun.models.reference_cache import row_keys
from unlearun.models.share_checkpoint import read_plainly
from unlearun.records import Evaluation
from unlearun.report.summary import run_summary
from unlearun.report.tensorboard import answers_table
from unlearun.runs.checkpoint_io import WholeCheckpointIO

ROOT = Path(unlearun.__file__).parent
NEVER_IMPORTED = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "code"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
# It unpickles with a class of its own, which imports next to nothing; what it refuses has tests below.
REFUSES = "share_checkpoint.py"
# Methods of ours that are called format, and texts of ours that are.
FORMATTED = {"formatter", "self", "sets", "sentence"}


def calls(file: Path):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def unsafe(file: Path) -> list[str]:
    """Where a file of the package might run, or format, what it reads."""
    found = []
    if file.name == REFUSES:
        used = set(re.findall(r"\bpickle\.(\w+)", file.read_text(encoding="utf-8")))
        return sorted(used - {"Unpickler", "UnpicklingError"})
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [name for name in names if name.partition(".")[0] in NEVER_IMPORTED]
    for node, name, words in calls(file):
        wrong = name in NEVER_CALLED or words.get("shell", "False") != "False" or "allow_pickle" in words
        wrong |= name == "torch.load" and words.get("weights_only") != "True"
        wrong |= (
            name.startswith("Auto")
            and name.endswith(("pretrained", "from_config"))
            and not ("trust_remote_code" in words or "assets" in file.parts)
        )
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "format_map"):
            receiver = ast.unparse(node.func.value).rpartition(".")[2]
            wrong |= receiver not in FORMATTED and "assets" not in file.parts
        found += [f"line {node.lineno}: {name}"] if wrong else []
    return found


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_unpickled_run_or_formatted(file):
    assert unsafe(file) == []


def test_the_look_at_the_code_finds_what_it_looks_for(tmp_path):
    """A check that cannot fail would be none."""
    bad = ["import pickle", "from dill import load", "eval(x)", "torch.load(f)", "torch.load(f, weights_only=False)"]
    bad += ["subprocess.run(c, shell=True)", "yaml.load(f)", "question.format(a)", "np.load(f, allow_pickle=True)"]
    bad += ["AutoModel.from_pretrained(x)", "AutoModelForCausalLM.from_config(c)", "os.system(c)"]
    for line in bad:
        (tmp_path / "bad.py").write_text(line)
        assert len(unsafe(tmp_path / "bad.py")) == 1, line
    (tmp_path / "good.py").write_text("torch.load(f, weights_only=True); yaml.safe_load(f); formatter.format(x)")
    assert unsafe(tmp_path / "good.py") == []


# ---- checkpoints ------------------------------------------------------------------------------------------------


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, make_model(tmp_path / "made"))


@pytest.mark.parametrize("wrapped", [False, True], ids=["a pickle", "in a zip file"])
def test_a_checkpoint_runs_nothing_wherever_it_is_named(wrapped, place, capsys):
    file, mark = place.folder / "x.ckpt", place.folder / "ran"
    stored = {CHECKPOINT_KEY: Hostile(mark), "state_dict": {}}
    if wrapped:
        torch.save(stored, file)
        assert zipfile.is_zipfile(file)
    else:
        file.write_bytes(pickle.dumps(stored))
    options = place.fit("--ckpt_path", "x.ckpt")[1:]
    for arguments in (["export", "x.ckpt", "out"], ["fit", *options], ["validate", *options], ["test", *options]):
        assert main(arguments) == 2
        assert "x.ckpt cannot be read as a checkpoint of weights and plain values" in capsys.readouterr().err
    assert not mark.exists()
    torch.load(file, weights_only=False) if wrapped else pickle.loads(file.read_bytes())  # elsewhere it would have run
    assert mark.exists()


def test_a_name_of_a_million_letters_in_a_checkpoint_is_refused_at_once(tmp_path):
    """To say that it is not allowed, torch looks for words in it, in a time that grows with the square of its size."""
    torch.save({}, tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as whole, zipfile.ZipFile(tmp_path / "x.ckpt", "w") as made:
        for name in whole.namelist():
            hostile = b"\x80\x02c" + b"a" * 1_000_000 + b"\nx\n."
            made.writestr(name, hostile if name.endswith("data.pkl") else whole.read(name))
    start = time.monotonic()
    with pytest.raises(UnlearunError, match=r"cannot be read as a checkpoint .*: it holds 'aaa.*\.\.\., which is code"):
        read_checkpoint(tmp_path / "x.ckpt")
    assert time.monotonic() - start < 10


def test_a_checkpoint_is_never_fetched(place, capsys):
    """Lightning would unpickle what comes from a remote place."""
    assert main(place.fit("--ckpt_path", "http://127.0.0.1:9/x.ckpt")) == 2
    assert "there is no checkpoint http:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "stored", [{"state_dict": {}}, {CHECKPOINT_KEY: 3, "state_dict": {}}, {CHECKPOINT_KEY: {}}, [1]]
)
def test_a_checkpoint_of_anything_else_is_none(stored, tmp_path):
    torch.save(stored, tmp_path / "x.ckpt")
    with pytest.raises(UnlearunError, match="is no checkpoint of an unlearun run"):
        read_checkpoint(tmp_path / "x.ckpt")


@pytest.fixture
def shares(tmp_path):
    """A checkpoint of shares, with a value beside the weights that torch keeps as a pickle."""
    stored = {"weight": torch.ones(3, 2, dtype=torch.bfloat16), "step": 3, "when": Path("somewhere")}
    distributed_checkpoint.save(stored, checkpoint_id=tmp_path / "shares", no_dist=True)
    return tmp_path / "shares"


def load_shares(folder, **wanted) -> dict:
    with read_plainly(folder):
        distributed_checkpoint.load(wanted, checkpoint_id=folder, no_dist=True)
    return wanted


def test_a_checkpoint_of_shares_is_read_but_for_what_would_run(shares):
    found = load_shares(shares, weight=torch.zeros(3, 2, dtype=torch.bfloat16), step=0)
    assert torch.equal(found["weight"], torch.ones(3, 2, dtype=torch.bfloat16))
    assert found["step"] == 3
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    with pytest.raises(CheckpointException, match="Weights only load failed"):
        load_shares(shares, when=None)


def test_a_description_of_shares_that_would_run_something_is_refused(shares, tmp_path):
    mark = tmp_path / "ran"
    (shares / ".metadata").write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(UnlearunError, match=r"cannot be read as a checkpoint of shares .*: pathlib.Path"):
        load_shares(shares, step=0)
    assert not mark.exists()
    for name in ("os", "Any", "Metadata.__init__", "MetadataIndex.__class__"):
        (shares / ".metadata").write_bytes(
            b"\x80\x04\x8c\x25torch.distributed.checkpoint.metadata\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
        )
        with pytest.raises(UnlearunError, match=r"cannot be read as a checkpoint of shares \(UnpicklingError"):
            load_shares(shares, step=0)
    (shares / ".metadata").unlink()
    with pytest.raises(UnlearunError, match=r"is no checkpoint of shares: it holds no \.metadata"):
        load_shares(shares, step=0)


def test_a_file_is_unpickled_only_for_who_says_so_and_then_with_a_warning(tmp_path, caplog):
    mark = tmp_path / "ran"
    torch.save({"x": Hostile(mark)}, tmp_path / "x.ckpt")
    with pytest.raises(UnlearunError, match="which is code"):
        WholeCheckpointIO().load_checkpoint(tmp_path / "x.ckpt")
    assert not mark.exists()
    WholeCheckpointIO().load_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    assert mark.exists()
    assert f"{tmp_path / 'x.ckpt'} is unpickled, which runs what it says" in caplog.text


# ---- files of a run that goes on --------------------------------------------------------------------------------


@pytest.mark.parametrize("values", ["sums", "tokens"])
def test_a_cached_reference_with_too_few_numbers_serves_no_row(values, tmp_path):
    """Row 0 of the batch has 7 labels, row 1 has 4, row 2 has 1."""
    batch = random_batch()
    counts = [1, 1, 1] if values == "sums" else batch.mask.sum(-1).tolist()
    rows = {key: [-1.0] * count for key, count in zip(row_keys(batch), counts, strict=True)}
    origin = {"values": values}
    assert CachedLogprobs(rows, origin).knows([batch])
    assert not CachedLogprobs({**rows, row_keys(batch)[0]: [-1.0] * (counts[0] + 1)}, origin).knows([batch])
    assert not CachedLogprobs({key: rows[key] for key in row_keys(batch)[1:]}, origin).knows([batch])


@pytest.mark.parametrize("alternates", [[], "In Rome.", [3], None, [["x"]]])
def test_other_answers_that_are_no_texts_are_made_up_again(alternates, tmp_path):
    examples = [Example(0, [1, 2], 1, True, Item("row 0", "Who?", "Ann"))]
    write_alternates(tmp_path, examples, [["Ben"]])
    assert read_alternates(tmp_path, examples) == [["Ben"]]
    row = {"question": "Who?", "answer": "Ann", "alternates": alternates}
    (tmp_path / "alternates.json").write_text(json.dumps([row]))
    assert read_alternates(tmp_path, examples) is None


# ---- text of rows -----------------------------------------------------------------------------------------------

TRICKS = ["{0.__class__}", "{question}", "{answer}", "%s %(x)s %d", "${HOME} $(touch ran) `touch ran`", "{{7*7}}{%"]


@pytest.mark.parametrize("trick", TRICKS)
def test_text_of_a_row_is_no_format_string_and_no_template(trick):
    tokenizer = make_tokenizer()
    formatter = Formatter(tokenizer, prompt="{answer} {0.__class__} {question.__class__} {question}:")
    example, _ = formatter.format(Item("row 0", trick, trick), 0)
    seen = tokenizer.decode(example.input_ids)
    spelt = tokenizer.decode(tokenizer(trick)["input_ids"])  # what the tokenizer does not know has become full stops
    prompt = tokenizer.decode(tokenizer("{answer} {0.__class__} {question.__class__} ")["input_ids"])
    assert seen == f"{prompt}{spelt}: {spelt}<eos>"


def test_text_of_a_row_is_no_format_string_in_a_chat_template_or_a_log(caplog):
    tokenizer = make_tokenizer("{% for turn in messages %}[{{ turn.content }}]{% endfor %}")
    data = UnlearningDataModule([{"question": trick, "answer": trick} for trick in TRICKS] * 2, RETAIN)
    data.connect(tokenizer)
    shown = preview(data, rows=len(TRICKS))
    assert shown.count("[{answer}]") == 1
    assert "6 of 12 rows stand there before already" in caplog.text


def test_a_question_that_holds_the_word_answer_does_not_get_the_answer(monkeypatch):
    """What a model is asked, to make up another answer, is put together at one go."""
    asked = []

    def answers(policy, formatter, prompts, *_args, **_settings):
        asked.extend(formatter.tokenizer.decode(ids) for ids in prompts)
        return [formatter.tokenizer("Ben")["input_ids"]] * len(prompts)

    monkeypatch.setattr("unlearun.models.alternates.continue_prompts", answers)
    data = UnlearningDataModule([{"question": "Is {answer} right?", "answer": "{question}!"}], RETAIN)
    data.connect(make_tokenizer())
    policy = torch.nn.Module()
    policy.model = torch.nn.Linear(1, 1)
    policy.model.device = torch.device("cpu")
    policy.model.config = type("", (), {"get_text_config": lambda self: self})()
    made = own_alternates(policy, data, data.examples("forget"), AlternateSettings("{question} {answer}", 1, 9, 0))
    assert made == [["Ben"]]
    assert "Is {answer} right? {question}!" in asked[0]


class Cells(HTMLParser):
    """The text of each cell, and every tag that is not of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data) -> None:
        if self.cells:
            self.cells[-1] += data.strip("\n")


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![see](http://nowhere/x.png) [go](javascript:alert(1))",
        "a | b || c",
        r"back \ slash \\ \| and *stars* __and__ `ticks`",
        "&lt;b&gt; & &amp;",
        "# no title",
    ],
)
def test_text_of_a_row_is_plain_text_in_tensorboard(text):
    """What Markdown makes of the table has no tags but the table's own, and the cells hold the texts."""
    table = answers_table({"0": {"question": text, "answer": text, "generation": text}})
    seen = Cells()
    seen.feed(markdown.markdown(table, extensions=["tables"]))
    assert seen.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert seen.cells[-3:] == [text] * 3


def test_text_of_a_row_commands_no_terminal():
    rows = {"0": {"question": "a\x1b[2Jb\x07", "answer": "c", "generation": "d\x1b]0;title\x07", "probability": 0.5}}
    printed = run_summary(None, Evaluation(0, {"forget/probability": 0.5}, {"forget": rows}))
    assert "a\ufffd[2Jb\ufffd" in printed
    assert "\x1b" not in printed


# ---- names ------------------------------------------------------------------------------------------------------


def test_predictions_stay_in_the_run_folder(place, capsys):
    rows = json.dumps({"facts.v2 b": "retain.jsonl"})
    assert main(["predict", *place.fit("--data.utility", rows)[1:]]) == 0
    folder = place.folder / "outputs" / "simnpo" / "1" / "predictions"
    assert sorted(file.name for file in folder.iterdir()) == ["facts.v2 b.jsonl", "forget.jsonl", "retain.jsonl"]
    for name in ("../../x", "..\\x", ".x", "/tmp/x"):
        assert main(["predict", *place.fit("--data.utility", json.dumps({name: "retain.jsonl"}))[1:]]) == 2
        assert "a set cannot be called" in capsys.readouterr().err


def test_what_is_trusted_by_name_reaches_model_and_tokenizer_and_is_in_the_config(place, caplog):
    with caplog.at_level(logging.WARNING, logger="unlearun"):
        assert main(place.fit("--model.trust_remote_code", "true")) == 0
    said = [record.getMessage() for record in caplog.records if "trust_remote_code" in record.getMessage()]
    assert said == ["trust_remote_code: code that tiny brings along, if any, is run"] * 2
    config = (place.folder / "outputs" / "simnpo" / "1" / "config.yaml").read_text()
    assert "trust_remote_code: true" in config
