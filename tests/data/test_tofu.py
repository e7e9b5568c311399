"""The files of a published benchmark, where they lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_tokenizer

from unlearun.data import UnlearningDataModule

TOFU = Path(__file__).resolve().parents[3] / "shared" / "data" / "tofu"

pytestmark = pytest.mark.skipif(not TOFU.is_dir(), reason="the TOFU files are not beside this checkout")


def test_forget_and_retain_are_read_and_do_not_overlap():
    data = UnlearningDataModule(
        str(TOFU / "forget10_perturbed.json"), str(TOFU / "retain90.json"), overlap="error", max_length=1024
    )
    data.connect(make_tokenizer())
    assert (len(data.examples("forget")), len(data.examples("retain"))) == (400, 3600)
    item = data.examples("forget")[0].item
    assert item.paraphrase == "Hsiao Yun-Hwa is the complete name of the writer."
    assert len(item.perturbed) == 5


def test_a_set_inside_another_is_noticed(caplog):
    UnlearningDataModule(str(TOFU / "forget01.json"), str(TOFU / "full.json")).read()
    assert "40 rows stand in both forget and retain" in caplog.text
