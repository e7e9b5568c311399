"""LoRA for every method: adapters are trained, the model is its own reference, what is saved is what was trained."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from conftest import FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer
from peft import PeftModel
from transformers import AutoModelForCausalLM

from unlearun import Unlearning
from unlearun.__main__ import main
from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import METHODS, NPO, RMU, RR, GradDiff, IdkNLL, SimNPO, TaskVector
from unlearun.models import LoRA, load_model, merging

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
IDS = torch.arange(24).reshape(2, 12)


def make(cls, model=None, **arguments):
    model = make_llama(layers=4) if model is None else model
    return cls(model, tokenizer=make_tokenizer(), lora=LoRA(r=4), **arguments)


def fit(method, learning_rate=1e-2, **trainer):
    method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": learning_rate}}
    rows = [{**row, "other": "No."} for row in FORGET]
    data = UnlearningDataModule(rows, RETAIN, batch_size=2, alternate_key="other")
    settings = {"limit_val_batches": 0, **QUIET, **({"max_steps": 1} if "max_epochs" not in trainer else {}), **trainer}
    Trainer(**settings).fit(method, datamodule=data)
    return method


def ups(method):
    return {name: weight for name, weight in method.model.named_parameters() if "lora_B" in name}


@pytest.mark.parametrize("checkpointing", [False, True, "selective"])
@pytest.mark.parametrize("cls", METHODS)
def test_every_adapter_has_learnt_after_one_step_and_nothing_else_has(cls, checkpointing):
    """RR's retain loss weighs nothing in the first step, but its forget loss reaches every layer below."""
    method = make(cls, gradient_checkpointing=checkpointing)
    before = {name: weight.clone() for name, weight in method.model.named_parameters()}
    fit(method)
    assert ups(method)
    for name, weight in method.model.named_parameters():
        if "lora_B" in name:
            assert weight.abs().max() > 0, name
        elif "lora_A" not in name:
            assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("family", [make_llama, make_gpt2])
def test_adapters_are_where_the_loss_reaches(family):
    kinds = {
        GradDiff: {0, 1, 2, 3},
        RR: {0, 1},  # what layers 0 and 1 of 4 put out is read
        RMU: {0, 1},
    }
    for cls, layers in kinds.items():
        method = make(cls, family(layers=4))
        names = list(ups(method))
        assert {int(name.split(".")[2]) for name in names} == layers
        assert not any("head" in name for name in names)
        projections = {name.split(".lora_B")[0].rpartition(".")[2] for name in names}
        if cls is RMU:
            assert projections == {"down_proj" if family is make_llama else "c_proj"}
            assert all("mlp" in name for name in names)
        else:
            expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
            assert projections == (expected if family is make_llama else {"c_attn", "c_proj", "c_fc"})


@pytest.mark.parametrize("cls", [GradDiff, NPO, RMU, RR])
@pytest.mark.parametrize("way", ["auto", "weights"])
def test_the_reference_is_the_start_after_any_number_of_steps(cls, way):
    kind = {"retain_loss_type": "KL"} if cls in (GradDiff, NPO) else {}
    start, batch = make_llama(layers=4), random_batch()
    method = fit(make(cls, copy.deepcopy(start), reference_way=way, **kind), max_epochs=2)
    plain = method.reference if way == "weights" else method._make_reference()  # a cache knows its own rows alone
    frozen = (
        cls(start, reference_way="copy").reference
        if cls in (RMU, RR)
        else GradDiff(start, retain_loss_type="KL").reference
    )
    assert torch.allclose(plain.logits(batch), frozen.logits(batch), atol=1e-6)
    assert torch.allclose(plain.hidden(batch, (1,))[0], frozen.hidden(batch, (1,))[0], atol=1e-6)
    assert not torch.allclose(method.policy(batch, "logits"), plain.logits(batch), atol=1e-4)
    assert {name for name, weight in method.model.named_parameters() if weight.requires_grad} == {
        name for name in dict(method.model.named_parameters()) if "lora_" in name
    }


@pytest.mark.parametrize("cls", [NPO, RMU, RR])
def test_adapters_off_give_the_same_steps_as_a_frozen_copy(cls):
    def steps(way):
        found = []

        class Seen(cls):
            def on_before_optimizer_step(self, optimizer):
                found.append({name: part.item() for name, part in self._step_parts.items()})
                super().on_before_optimizer_step(optimizer)

        torch.manual_seed(0)  # adapters begin at random
        fit(make(Seen, make_llama(layers=4).double(), reference_way=way), max_epochs=6, precision="64-true")
        return found

    off, copied = steps("weights"), steps("copy")
    assert len(off) == 12
    for one, other in zip(off, copied, strict=True):
        assert one == pytest.approx(other, rel=1e-8, abs=1e-10)


def test_no_memory_is_taken_for_a_reference():
    method = make(GradDiff, retain_loss_type="KL", reference_way="weights")
    assert method.reference.describe() == "the model with its adapters switched off"


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS.to(model.device)).logits.cpu()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained("tiny")
    make_tokenizer().save_pretrained("tiny")

    def run(**lora):
        unlearner = Unlearning("graddiff", "tiny", lora={"r": 4, **lora})
        unlearner.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2)
        return unlearner, unlearner.run(learning_rate=0.02, num_epochs=1, enable_progress_bar=False, accelerator="cpu")

    return run


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_what_a_run_leaves_gives_its_logits(tiny, kind):
    unlearner, folder = tiny(save=kind)
    expected = logits(unlearner.model)
    if kind == "merged":
        assert (logits(AutoModelForCausalLM.from_pretrained(folder / "model")) - expected).abs().max() < 1e-5
    assert (logits(load_model(str(folder))) - expected).abs().max() < 1e-5
    assert (folder / "model" / "adapter_config.json").exists() == (kind == "adapter")
    assert (folder / "model" / "config.json").exists() == (kind == "merged")
    assert (logits(load_model("tiny")) - expected).abs().max() > 1e-3


def test_a_saved_adapter_is_one_of_peft(tiny, tmp_path):
    unlearner, _ = tiny()
    unlearner.save_model("alone", adapter=True)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("tiny"), "alone")
    assert (logits(loaded) - logits(unlearner.model)).abs().max() < 1e-5
    assert json.loads((tmp_path / "alone" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tmp_path / "tiny"
    )


def test_a_checkpoint_holds_the_adapters_and_is_exported_and_resumed(tiny, capsys):
    unlearner, folder = tiny()
    checkpoint = next((folder / "checkpoints").glob("*.ckpt"))
    stored = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert stored
    assert all(".lora_" in name for name in stored)
    expected = logits(unlearner.model)
    assert main(["export", str(checkpoint), "whole"]) == main(["export", str(checkpoint), "part", "--adapter"]) == 0
    for target in ("whole", "part"):
        assert (logits(load_model(target)) - expected).abs().max() < 1e-5
    again = Unlearning("graddiff", "tiny", lora={"r": 4})
    again.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2)
    again.method.optimizer = unlearner.method.optimizer
    trainer = again._make_trainer({"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"})
    trainer.fit(again.method, datamodule=again.data, ckpt_path=str(checkpoint))
    assert (logits(again.model) - expected).abs().max() < 1e-6
    plain = Unlearning("graddiff", "tiny")
    plain.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2)
    trainer = plain._make_trainer({"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"})
    with pytest.raises(UnlearunError, match="the checkpoint has 28 weights of adapters, the model 0; set lora"):
        trainer.fit(plain.method, datamodule=plain.data, ckpt_path=str(checkpoint))
    thin = Unlearning("graddiff", "tiny", lora={"r": 2})
    thin.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2)
    trainer = thin._make_trainer({"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"})
    with pytest.raises(UnlearunError, match="of other shapes; set lora"):
        trainer.fit(thin.method, datamodule=thin.data, ckpt_path=str(checkpoint))
    loud = Unlearning("graddiff", "tiny", lora={"r": 4, "alpha": 16})
    loud.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2)
    trainer = loud._make_trainer({"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"})
    with pytest.raises(UnlearunError, match=r"have lora.alpha 8, those of the model 16"):
        trainer.fit(loud.method, datamodule=loud.data, ckpt_path=str(checkpoint))


def test_a_task_vector_turns_its_adapters_round():
    """θ - α (θ_ft - θ): what the adapters add is multiplied with -α."""
    start, found = make_llama(), {}

    class Seen(TaskVector):
        def finish(self):
            found.setdefault("tuned", logits(self.model))
            found.setdefault("ups", {name: weight.detach().cpu().clone() for name, weight in ups(self).items()})
            super().finish()

    method = fit(make(Seen, start, scale=0.5), max_epochs=1)
    for name, weight in ups(method).items():
        assert torch.allclose(weight, -0.5 * found["ups"][name])
    assert (found["tuned"] - logits(method.model)).abs().max() > 1e-3


@pytest.mark.parametrize("wrapper", [{}, {"sharpness_radius": 0.1}])
def test_a_weight_that_the_loss_does_not_reach_is_an_error_in_the_first_step(wrapper):
    class Deaf(SimNPO):
        def forget_loss(self, batch):
            layer = self.model.model.layers[0].self_attn.q_proj
            frozen, layer.forward = layer.forward, layer.base_layer.forward
            try:
                return super().forget_loss(batch)
            finally:
                layer.forward = frozen

    with pytest.raises(UnlearunError, match=r"2 of 56 trained weights got no gradient .*layers\.0\.self_attn\.q_proj"):
        fit(make(Deaf, alpha=0.0, **wrapper))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"r": 0}, "lora.r is 0"),
        ({"dropout": 1.0}, "lora.dropout is 1.0; it must be below 1"),
        ({"alpha": 0.0}, "lora.alpha"),
        ({"rank": 4}, "lora has no setting 'rank'"),
        ({"save": "both"}, "lora.save is 'both'"),
        ({"target": ["q_prj"]}, "q_proj"),
        ({"target": []}, "lora.target"),
        ({"target": "q_proj"}, "expected a list of names: \\[q_proj\\]"),
        ({"r": "8"}, "lora.r is '8'; expected a whole number"),
        (8, "lora is 8; expected settings by name"),
    ],
)
def test_arguments_out_of_range(wrong, message):
    with pytest.raises(UnlearunError, match=message):
        IdkNLL(make_llama(), lora=wrong)


def test_a_target_is_where_adapters_are():
    method = SimNPO(make_llama(), lora=LoRA(r=2, target=["q_proj", "v_proj"]))
    assert {name.split(".")[4] for name in ups(method)} == {"q_proj", "v_proj"}
    assert len(ups(method)) == 4


def test_adapters_upon_adapters():
    with pytest.raises(UnlearunError, match="has adapters already"):
        make(SimNPO, make(SimNPO).model)


@pytest.mark.parametrize(("arguments", "message"), [({}, "add lora"), ({"lora": LoRA()}, "name the model")])
def test_four_bits_are_for_adapters_beside_a_model_by_name(arguments, message):
    with pytest.raises(UnlearunError, match=message):
        SimNPO(make_llama(), load_in_4bit=True, **arguments)


def test_four_bits_train_and_are_merged_in_full(tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    """The base is NF4; what is saved is what it stands for plus the adapters."""
    monkeypatch.chdir(tmp_path)
    make_llama(width=64).save_pretrained("tiny")
    make_tokenizer().save_pretrained("tiny")
    unlearner = Unlearning("npo", "tiny", lora={"r": 4}, load_in_4bit=True, retain_loss_type="KL")
    unlearner.load_data(FORGET, RETAIN, max_new_tokens=2, batch_size=2)
    folder = unlearner.run(learning_rate=0.02, num_epochs=2, enable_progress_bar=False, accelerator="cpu")
    model = unlearner.model
    assert {type(layer.base_layer).__name__ for layer in model.modules() if hasattr(layer, "lora_A")} == {"Linear4bit"}
    assert all(weight.abs().max() > 0 for weight in ups(unlearner.method).values())
    loaded = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert type(loaded.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert (logits(loaded) - logits(model)).abs().max() < 2e-2
    checkpoint = next((folder / "checkpoints").glob("*.ckpt"))
    assert main(["export", str(checkpoint), "whole"]) == 0
    assert (logits(AutoModelForCausalLM.from_pretrained("whole")) - logits(loaded)).abs().max() < 1e-5


def test_adapters_beside_four_bits_learn_as_beside_what_those_stand_for(tmp_path):
    """After an evaluation, too: bitsandbytes would pack the weights then, without a backward pass."""
    pytest.importorskip("bitsandbytes")
    make_llama(layers=3, width=64).save_pretrained(tmp_path / "tiny")
    packed = load_model(str(tmp_path / "tiny"), four_bit=True)
    plain = merging.rebuilt(packed, merging.merged_weights(packed))
    found, batch = [], {"forget": random_batch(seed=1), "retain": random_batch(seed=2)}
    for model in (packed, plain):
        torch.manual_seed(0)
        method = SimNPO(model, lora=LoRA(r=4))
        method.policy.eval()
        with torch.no_grad():
            method.policy(batch["forget"], "stats")
        method.policy.train()
        method.training_step(batch, 0).backward()
        found.append(torch.cat([weight.grad.flatten() for weight in ups(method).values()]))
    assert found[1].norm() > 1e-3
    assert (found[0] - found[1]).norm() < 1e-3 * found[1].norm()
