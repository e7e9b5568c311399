"""What only a GPU can show: losses, precisions, strategies and whole runs there; one GPU and CUDA are needed."""

from __future__ import annotations

import json
from importlib.util import find_spec

import fits
import pytest
import torch
from precisions import CLIP, fit
from processes import alone
from safetensors.torch import load_file

from unlearun.__main__ import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use")
DEEPSPEED = find_spec("deepspeed") is not None

# Relative, of the first step; later ones part, for Adam takes the sign of small gradients too.
ROUNDING = {"32-true": 1e-4, "bf16-mixed": 0.01, "bf16-true": 0.01, "16-mixed": 0.002}
HIDING = {name: fits.CASES[name] for name in ("SimNPO", "UNDIAL", "NPO with adapters", "GradDiff with a copy")}
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.max_steps", "3"]


def same(found, expected, first, later):
    """Check that the losses of two fits agree, and that there was something to agree on."""
    assert len(found) == len(expected)
    assert expected[0] != expected[-1]
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        tolerance = later if i else first
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", fits.CASES)
def test_losses_and_weights_on_a_gpu_are_those_on_a_cpu(name):
    cpu = fits.run(fits.Fit(*fits.CASES[name]))
    gpu = fits.run(fits.Fit(*fits.CASES[name], accelerator="gpu"))
    same(gpu.steps, cpu.steps, 1e-8, 1e-8)
    for key, weight in cpu.weights.items():  # Adam makes much of gradients of almost 0
        torch.testing.assert_close(gpu.weights[key].cpu(), weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*HIDING, "RMU", "PDU with both"])
def test_a_strategy_that_shares_weights_gives_the_losses_of_one_device(name):
    """In float64 but for FSDP1 and DeepSpeed, which compute in float32."""
    strategies = {"fsdp2": 1e-8}
    if name in HIDING:
        strategies |= {"fsdp1": 1e-4, **({"deepspeed_stage_2": 1e-4, "deepspeed_stage_3": 1e-4} if DEEPSPEED else {})}
    method, options = fits.CASES[name]
    options = {**options, **({} if "lora" in options or name == "RMU" else {"reference_way": "copy"})}
    expected = fits.run(fits.Fit(method, options))
    for strategy, rounding in strategies.items():
        found = alone(fits.run, fits.Fit(method, options, strategy=strategy, accelerator="gpu"))
        same(found.steps, expected.steps, rounding, rounding)


@pytest.mark.skipif(not DEEPSPEED, reason="needs deepspeed")
@pytest.mark.parametrize("stage", ["deepspeed_stage_2", "deepspeed_stage_3"])
def test_deepspeed_accumulates_and_clips_as_one_device(stage):
    method = fits.CASES["SimNPO"]
    expected = fits.run(fits.Fit(*method, 6, 1, 0.5))
    found = alone(fits.run, fits.Fit(*method, 2, 3, 0.5, stage, "gpu"))
    same(found.steps, expected.steps, 1e-4, 1e-4)


@pytest.mark.parametrize("method", ["SimNPO", "NPO", "RMU"])
@pytest.mark.parametrize("precision", ROUNDING)
def test_every_precision_is_near_float32_on_a_cpu(precision, method):
    options = {"SimNPO": {"beta": 0.1}, "NPO": {"retain_loss_type": "KL"}, "RMU": {"target_layer": 1}}[method]
    plain = fit("32-true", method, options)
    for checkpointing in (False, True, "selective"):
        more = {**options, "gradient_checkpointing": checkpointing}
        found = fit(precision, method, more, accelerator="gpu")
        assert found.losses == {torch.float32}
        assert found.weights == ({torch.bfloat16} if precision == "bf16-true" else {torch.float32})
        same(found.steps, plain.steps, ROUNDING[precision], 20 * ROUNDING[precision])
        assert max(found.lengths) <= CLIP * (1.01 if precision == "bf16-true" else 1.0001)


@pytest.mark.parametrize("trainer", ["fsdp", "fsdp1", "ddp", "deepspeed_zero2", "deepspeed_zero3"])
@pytest.mark.parametrize("method", ["rmu", "simnpo", "npo"])
def test_a_whole_run_by_the_command(trainer, method, tmp_path, monkeypatch):
    """With evaluations before and after, and a model to load, where the strategy can give one."""
    if trainer.startswith("deepspeed") and not DEEPSPEED:
        pytest.skip("needs deepspeed")
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "--config", method, "--config", f"trainer/{trainer}", "--trainer.devices", "1", *QUIET]
    if method == "npo":
        arguments += ["--trainer.precision", "16-mixed"]
    if method == "rmu" and trainer == "fsdp1":
        pytest.skip("its embeddings are tied, and frozen: refused on one device")
    if method == "rmu" and trainer in ("deepspeed_zero3",):
        arguments += ["--model.reference_way", "copy"]
    if method == "npo" and trainer in ("fsdp1", "deepspeed_zero3"):
        arguments += ["--model.lora.r", "4"]
    assert alone(main, arguments) == 0
    (folder,) = tmp_path.glob("outputs/*/*")
    first, last = (json.loads((folder / f"eval/step={step}.json").read_text())["summary"] for step in (0, 3))
    assert first["forget/probability"] > last["forget/probability"]
    if "--model.lora.r" not in arguments:
        weights = load_file(folder / "model/model.safetensors")
        assert all(bool(weight.isfinite().all()) for weight in weights.values())
    (checkpoint,) = (folder / "checkpoints").glob("*.ckpt")
    further = ["--trainer.max_steps", "5", "--ckpt_path", str(checkpoint), "--output_dir", str(tmp_path / "further")]
    assert alone(main, ["fit", "--config", str(folder / "config.yaml"), *further]) == 0
    (folder,) = tmp_path.glob("further/*/*")
    assert (folder / "eval/step=5.json").is_file()


def test_four_bit_adapters_forget_on_a_gpu(tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    monkeypatch.chdir(tmp_path)
    lora = ["--model.lora.r", "8", "--model.load_in_4bit", "true", "--trainer.precision", "bf16-mixed"]
    assert alone(main, ["fit", "--config", "simnpo", *lora, "--trainer.enable_progress_bar", "false"]) == 0
    (folder,) = tmp_path.glob("outputs/*/*")
    files = sorted(folder.glob("eval/step=*.json"), key=lambda file: int(file.stem.partition("=")[2]))
    first, last = (json.loads(file.read_text())["summary"]["forget/probability"] for file in (files[0], files[-1]))
    assert last < 0.7 * first
