"""Whatever a file holds: no crash, no hang, nothing but the library's own error.

A few hundred inputs for each reader here, always the same; ``UNLEARUN_FUZZ=10000 pytest tests/test_fuzz.py`` takes as
many as one likes, and prints how many were refused and how long it took.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import FORGET, RETAIN
from fuzzing import files, mutated, nested, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unlearun.__main__ import main
from unlearun.data import Keys, read_rows
from unlearun.data.cache import read_table, write_table
from unlearun.data.examples import TokenTable
from unlearun.data.rows import check_rows
from unlearun.errors import UnlearunError
from unlearun.models import CachedLogprobs
from unlearun.models.export import CHECKPOINT_KEY, read_checkpoint
from unlearun.records import Evaluation, read_reference

EXAMPLES = int(os.environ.get("UNLEARUN_FUZZ", "150"))
# No input is larger than some 100 kB: what takes longer hangs.
MOST_SECONDS = 20.0

fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="UNLEARUN_FUZZ" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Counted:
    """Reads inputs, one file after the other, and counts.

    Args:
        file: Where to.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.inputs = self.refused = 0
        self.longest = 0.0
        self.start = time.monotonic()

    def __call__(self, content: bytes, read: Callable[[Path], object]) -> None:
        self.file.write_bytes(content)
        self.inputs += 1
        start = time.monotonic()
        try:
            read(self.file)
        except UnlearunError:
            self.refused += 1
        seconds = time.monotonic() - start
        self.longest = max(self.longest, seconds)
        assert seconds < MOST_SECONDS

    def __str__(self) -> str:
        seconds = time.monotonic() - self.start
        return f"{self.inputs} inputs, {self.refused} refused, {seconds:.0f} s, the longest {self.longest:.2f} s"


@pytest.fixture
def counted(tmp_path, request, capsys):
    made = Counted(tmp_path / "input.json")
    yield made
    if "UNLEARUN_FUZZ" in os.environ:
        with capsys.disabled():
            sys.stdout.write(f"\n{request.node.name}: {made}\n")
    assert 0 < made.refused < made.inputs  # some are whole enough, some are not


# ---- rows -------------------------------------------------------------------------------------------------------

ROW = {**FORGET[0], "paraphrased_answer": "By the sea, in Oslo.", "perturbed_answer": ["In Rome."], "split": "a"}
ROWS = [[*FORGET, ROW], ROW, [{"text": "Some text.", "topic": "t"}], RETAIN]
KEYS = [*ROW, "text", "topic", "short_answer"]


@pytest.mark.parametrize("name", ["input.json", "input.jsonl"])
def test_rows(name, counted, tmp_path):
    counted.file = tmp_path / name

    @given(files(ROWS, KEYS, lines=True), st.booleans(), st.booleans())
    @fuzzed
    def run(content, split, alternates):
        def read(file):
            source = {"path": str(file), "split": "a"} if split else str(file)
            keys = Keys(alternate="perturbed_answer" if alternates else None)
            items = check_rows(read_rows(source, "the forget set"), keys, "the forget set", needs_alternate=True)
            assert items
            assert all(isinstance(item.answer, str) for item in items)

        counted(content, read)

    run()


# ---- records ----------------------------------------------------------------------------------------------------

RECORD = {
    **{"probability": 0.5, "truth_ratio": 0.7, "mia_min_k": -1.0, "logprob": -3.0, "tokens": 4, "rougeL_recall": 1.0},
    **{"question": "Who?", "answer": "Ann", "generation": "Ben", "exact_memorization": 0.25},
}
OURS = {
    **{"step": 3, "summary": {"mia": 0.5}, "intervals": {"mia": [0.1, 0.9]}, "parts": {}, "given": {"mia_min_k": 0.5}},
    "examples": {name: {"0": RECORD, "1": RECORD} for name in ("forget", "retain", "holdout")},
    "metrics": ["probability", "os.system"],
    "fingerprint": {"kind": "x", "model": "m", "template": {"prompt": "p"}, "sets": {"forget": {"rows": 2}}},
}
LOSSES = {
    **{"avg_gt_loss": {"0": 1.0}, "avg_paraphrased_loss": {"0": 2.0}, "average_perturb_loss": {"0": [1.0, 3.0]}},
    **{"gt_loss": {"0": 4.0}, "num_token_gt": {"0": 4}, "generated_text": {"0": ["q", "g", "a"]}},
}
TOFU = {"eval_log_forget.json": LOSSES, "eval_log.json": LOSSES, "eval_real_author_wo_options.json": LOSSES}
OPEN = {
    **{"forget_truth_ratio": {"value_by_index": {"0": {"score": 0.5}}}, "mia_min_k": {"auc": 0.5, "agg_value": 0.5}},
    **{"forget_Q_A_Prob": {"value_by_index": {"0": {"prob": 0.5, "avg_loss": 0.7}}, "agg_value": 0.5}},
    "forget_Q_A_ROUGE": {"value_by_index": {"0": {"rougeL_recall": 0.5, "input": "q", "generation": "g"}}},
}
NAMES = [*OURS, *OURS["examples"], *RECORD, *TOFU, *LOSSES, *OPEN, "value_by_index", "agg_value", "template"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("as_reference", [False, True], ids=["records", "reference"])
def test_records(as_reference, counted, tmp_path):
    """``unlearun score`` of any file; or of a whole one against any reference."""
    whole = tmp_path / "whole.json"
    Evaluation(0, examples=OURS["examples"]).write(whole)

    @given(files([OURS, TOFU, OPEN], NAMES))
    @fuzzed
    def run(content):
        def read(file):
            arguments = [str(whole), "--retain", str(file)] if as_reference else [str(file)]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                status = main(["score", *arguments, "--no-intervals"])
            if status == 2:
                raise UnlearunError(said.getvalue())
            assert status == 0

        counted(content, read)

    run()


@pytest.mark.parametrize("read", [Evaluation.read, read_reference], ids=["evaluation", "reference"])
def test_records_in_a_run(read, counted):
    @given(files([OURS], NAMES))
    @fuzzed
    def run(content):
        counted(content, read)

    run()


# ---- checkpoints and cached references --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    file = tmp_path_factory.mktemp("fuzz") / "whole.ckpt"
    facts = {"method": "NPO", "lora": None, "base": ["tiny", "float32", False], "tokenizer": None}
    weights = {"policy.model.weight": torch.arange(6.0), "policy.model.bias": torch.ones(2, dtype=torch.bfloat16)}
    torch.save({CHECKPOINT_KEY: facts, "state_dict": weights, "global_step": 3, "loops": nested(9)}, file)
    return file.read_bytes()


def test_checkpoints(checkpoint, counted):
    content = st.binary(max_size=300) | mutated(st.just(checkpoint)) | zipped(checkpoint)

    @given(content)
    @fuzzed
    def run(content):
        counted(content, read_checkpoint)

    run()
    counted(checkpoint, read_checkpoint)


def test_token_ids(counted, tmp_path):
    """Those that cannot be read are made anew, so they are None and no error."""
    write_table(tmp_path / "whole", TokenTable(*(array("i", [3, 1, 2]) for _ in range(5)), cuts=1))
    whole = (tmp_path / "whole").read_bytes()

    def read(file):
        found = read_table(file)
        if found is None:
            raise UnlearunError("made anew")
        assert found == read_table(tmp_path / "whole")

    @given(st.binary(max_size=300) | mutated(st.just(whole)))
    @fuzzed
    def run(content):
        counted(content, read)

    run()
    counted(whole, read)


CACHED = {
    "origin": {"weights": "ab", "values": "sums", "dtype": "torch.float32", "precision": "32-true"},
    "rows": {"12": [-3.5], "7": [-1.0]},
}


def test_cached_references(counted):
    """One that cannot be read is computed again, so it is None and no error."""
    counted.file = counted.file.with_name("reference.json")

    @given(files([CACHED], [*CACHED, *CACHED["origin"], "12"]))
    @fuzzed
    def run(content):
        def read(file):
            found = CachedLogprobs.read(file.parent)
            if found is None:
                raise UnlearunError("computed again")
            assert isinstance(found.origin, dict)
            assert all(isinstance(key, int) for key in found.values)
            assert all(isinstance(value, float) for row in found.values.values() for value in row)

        counted(content, read)

    run()
