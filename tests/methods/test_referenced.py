"""However the reference is kept, a method makes the same steps."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer, random_batch
from lightning.pytorch import Trainer

from unlearun import Unlearning, UnlearunError
from unlearun.data import UnlearningDataModule
from unlearun.methods import DPO, RMU, GradDiff
from unlearun.models import CachedLogprobs, CachedStates, FrozenCopy, OriginalWeights, SplitReference

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
MAKE = {"llama": make_llama, "gpt2": make_gpt2}
CASES = {
    "dpo": (DPO, {}),
    "dpo with KL": (DPO, {"retain_loss_type": "KL"}),
    "grad_diff with KL": (GradDiff, {"retain_loss_type": "KL", "gamma": 0.2}),
    "rmu": (RMU, {"target_layer": 1, "steering_coeff": 20.0, "adaptive": True}),
}


def sums(cache):
    """S_ref of each row, by its key."""
    return {key: sum(values) for key, values in cache.values.items()}


def steps_of(method, epochs=10, batch_size=2, **trainer):
    """The losses of each step: 4 forget rows, so two steps an epoch."""
    losses = []
    before = method.on_before_optimizer_step

    def noted(optimizer):
        losses.append([value.item() for value in method._step_parts.values()])
        before(optimizer)

    method.on_before_optimizer_step = noted
    method.optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05}}
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=batch_size)
    fit = Trainer(max_epochs=epochs, limit_val_batches=0, accelerator="cpu", **QUIET, **trainer)
    fit.fit(method, datamodule=data)
    return losses


CACHES = {"dpo": CachedLogprobs, "dpo with KL": SplitReference, "grad_diff with KL": CachedStates}


@pytest.mark.parametrize("family", MAKE)
@pytest.mark.parametrize("case", CASES)
def test_every_way_makes_the_same_twenty_steps(case, family):
    cls, arguments = CASES[case]
    ways = ("copy", "weights") if case == "rmu" else ("copy", "weights", "cache")
    kept = {"copy": FrozenCopy, "weights": OriginalWeights, "cache": CACHES.get(case)}
    losses = {}
    for way in ways:
        model = MAKE[family]().double()
        method = cls(model, tokenizer=make_tokenizer(), reference_way=way, dtype="float64", **arguments)
        losses[way] = torch.tensor(steps_of(method), dtype=torch.float64)
        assert isinstance(method.reference, kept[way])
    assert losses["copy"].shape[0] == 20
    assert (losses["copy"][0] - losses["copy"][-1]).abs().max() > 1e-3  # there was something to follow
    for way in ways[1:]:
        torch.testing.assert_close(losses[way], losses["copy"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("case", "expected"),
    [*CACHES.items(), ("rmu", OriginalWeights)],
)
def test_the_cheapest_way_is_chosen_and_said(case, expected, caplog):
    cls, arguments = CASES[case]
    method = cls(make_llama(), tokenizer=make_tokenizer(), **arguments)
    with caplog.at_level("INFO", logger="unlearun"):
        steps_of(method, epochs=1)
    assert isinstance(method.reference, expected)
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("reference:")]
    assert line == f"reference: {method.reference.describe()}"


def test_a_cache_that_cannot_be_is_an_error():
    method = RMU(make_llama(), tokenizer=make_tokenizer(), target_layer=1, reference_way="cache")
    with pytest.raises(UnlearunError, match="the loss of RMU reads hidden: use auto"):
        steps_of(method, epochs=1)
    with pytest.raises(UnlearunError, match="reference_way is 'cach'"):
        GradDiff(make_llama(), tokenizer=make_tokenizer(), reference_way="cach")


def test_states_that_do_not_fit_stay_live_beside_the_log_probabilities():
    losses = []
    for limit in (0.0, 1.0):
        method = DPO(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL", reference_cache_gb=limit)
        losses.append(torch.tensor(steps_of(method)))
        assert isinstance(method.reference, SplitReference)
        said = method.reference.describe()
        assert said.startswith("the log-probabilities of 8 answers, computed once; ")
        assert ("the trained weights as they were" in said) == (limit == 0)
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", [True, False])
def test_the_head_is_copied_only_where_it_is_trained(trained):
    class Part(GradDiff):
        def choose_trained(self):
            return [self.model] if trained else [self.model.model]

    method = Part(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL")
    steps_of(method, epochs=1)
    head = method.model.lm_head.weight
    assert ("and the head as it was" in method.reference.describe()) == trained
    assert (method.reference.head.weight.data_ptr() == head.data_ptr()) != trained
    assert torch.equal(method.reference.head.weight, head) != trained


def test_only_what_the_fit_draws_is_cached():
    method = GradDiff(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL")
    steps_of(method, epochs=1, batch_size=1, limit_train_batches=3)
    assert len(method.reference.states) == 3
    assert len(RETAIN) > 3


def test_cached_states_are_kept_in_the_precision_of_the_head():
    losses = []
    for way in ("cache", "weights"):
        method = GradDiff(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL", reference_way=way, gamma=0.2)
        losses.append(torch.tensor(steps_of(method, epochs=2, precision="bf16-mixed")))
        if way == "cache":
            assert {one.dtype for one in method.reference.states.values()} == {torch.bfloat16}
    torch.testing.assert_close(*losses, rtol=0.02, atol=0.02)


def test_another_model_is_asked_once_and_let_go():
    other = make_llama(seed=1)
    losses = {}
    for way in ("copy", "cache"):
        method = DPO(make_llama(), reference=other, tokenizer=make_tokenizer(), reference_way=way)
        losses[way] = torch.tensor(steps_of(method, epochs=2))
    torch.testing.assert_close(losses["cache"], losses["copy"], rtol=1e-5, atol=1e-6)
    assert losses["copy"][0, 1] != pytest.approx(20 * torch.tensor(2.0).log().item(), rel=1e-3)  # not the start itself


def test_dropout_stays_out_of_the_cache():
    """The policy trains with dropout, the reference's numbers are those of eval mode."""
    tables = []
    for _ in range(2):
        method = DPO(make_gpt2(dropout=0.5), tokenizer=make_tokenizer())
        steps_of(method, epochs=1)
        tables.append(sums(method.reference))
    assert tables[0] == tables[1]
    plain = DPO(make_gpt2(dropout=0.0), tokenizer=make_tokenizer())
    steps_of(plain, epochs=1)
    assert tables[0] == pytest.approx(sums(plain.reference))


# ---- in a run folder ----------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, files, monkeypatch):
    """Runs DPO on a tiny model by name, and returns the method and the run folder."""
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")

    def run(**trainer):
        unlearner = Unlearning("dpo", "tiny")
        unlearner.load_data(*map(str, files), batch_size=2, max_new_tokens=2)
        folder = unlearner.run(learning_rate=0.01, enable_progress_bar=False, accelerator="cpu", **trainer)
        return unlearner.method, folder

    return run


def test_it_is_kept_in_the_run_folder_and_in_no_checkpoint(tiny):
    method, folder = tiny(num_epochs=1)
    stored = json.loads((folder / "reference.json").read_text())
    assert len(stored["rows"]) == 2 * len(FORGET)  # answers and refusals
    assert set(stored["origin"]) == {"weights", "values", "dtype", "precision"}
    assert {int(key): value for key, value in stored["rows"].items()} == method.reference.values
    (checkpoint,) = (folder / "checkpoints").glob("*.ckpt")
    trained = sum(weight.numel() * weight.element_size() for weight in method.policy.parameters())
    assert checkpoint.stat().st_size < 3.2 * trained + 200_000  # weights and Adam's two moments


@pytest.mark.parametrize("spoil", [None, "weights", "rows", "file"])
def test_a_resumed_run_takes_what_fits_and_else_computes_it_from_the_start(tiny, spoil, caplog):
    whole, _ = tiny(num_epochs=2)
    first, folder = tiny(num_epochs=1)
    (checkpoint,) = (folder / "checkpoints").glob("*.ckpt")
    file = folder / "reference.json"
    stored = json.loads(file.read_text())
    if spoil == "weights":
        stored["origin"]["weights"] = "another"
    elif spoil == "rows":
        stored["rows"].popitem()
    file.write_text("{" if spoil == "file" else json.dumps(stored))
    with caplog.at_level("INFO", logger="unlearun"):
        resumed = resume(checkpoint)
    said = any("it is computed again" in record.getMessage() for record in caplog.records)
    assert said == (spoil is not None)
    assert sums(resumed.reference) == pytest.approx(sums(first.reference))
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def resume(checkpoint):
    method = DPO("tiny", tokenizer=make_tokenizer())
    method.optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=2)
    trainer = Trainer(max_epochs=2, limit_val_batches=0, accelerator="cpu", **QUIET)
    trainer.fit(method, datamodule=data, ckpt_path=str(checkpoint), weights_only=True)
    return method


def test_another_model_named_is_the_reference_of_a_model_named(tmp_path):
    """The cache is asked of the model given, not of the one that is trained."""
    for name, seed in {"one": 0, "other": 1}.items():
        make_llama(seed=seed).save_pretrained(tmp_path / name)
    named = DPO(str(tmp_path / "one"), reference=str(tmp_path / "other"), tokenizer=make_tokenizer())
    held = DPO(make_llama(), reference=make_llama(seed=1), tokenizer=make_tokenizer())
    own = DPO(make_llama(), tokenizer=make_tokenizer())
    losses = [torch.tensor(steps_of(method, epochs=1)) for method in (named, held, own)]
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2])


def test_a_second_fit_on_the_same_rows_keeps_the_start():
    method = DPO(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL")
    steps_of(method)
    first = method._caches
    steps_of(method, epochs=2)
    assert first.keys() == {"logprobs", "logits"}
    assert all(method._caches[need] is cache for need, cache in first.items())


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"precision": "bf16-mixed"}])
def test_a_second_fit_has_one_start_for_all_that_is_cached(change, caplog):
    """Fewer rows were drawn, or they were computed otherwise: then nothing of the first fit's start is kept."""
    method = DPO(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL")
    steps_of(method, epochs=1, batch_size=1, limit_train_batches=2)
    first = dict(method._caches)
    with caplog.at_level("WARNING", logger="unlearun"):
        steps_of(method, **{"epochs": 1, "batch_size": 1, "limit_train_batches": 2, **change})
    assert "its reference is the model as it is now" in caplog.text
    assert all(method._caches[need] is not cache for need, cache in first.items())


def test_a_second_fit_keeps_the_start_where_a_part_of_it_is_live(caplog):
    method = DPO(make_llama(), tokenizer=make_tokenizer(), retain_loss_type="KL", reference_cache_gb=0.0)
    steps_of(method, epochs=1)
    live, before = method.reference.parts["logits"], sums(method.reference.parts["logprobs"])
    with caplog.at_level("WARNING", logger="unlearun"):
        steps_of(method, epochs=1, precision="64-true")
    assert method.reference.parts["logits"] is live
    assert sums(method.reference.parts["logprobs"]) == pytest.approx(before, rel=1e-4)
    assert "as it is now" not in caplog.text


class Mixed(DPO):
    """Reads what no shipped method reads together; its losses do not matter."""

    needs: frozenset = frozenset()

    @property
    def reference_needs(self):
        return frozenset((need, "forget") for need in self.needs)

    def forget_loss(self, batch):
        if "hidden" in self.needs:
            self.reference.hidden(batch, (0,))
        if "logits" in self.needs:
            self.reference.logits(batch)
        return super().forget_loss(batch) if "logprobs" in self.needs else GradDiff.forget_loss(self, batch)


@pytest.mark.parametrize("needs", [{"logprobs", "hidden"}, {"logits", "hidden"}, {"logprobs", "logits", "hidden"}])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_method_of_ones_own_may_read_any_of_them(needs, alpha):
    method = Mixed(make_llama(), tokenizer=make_tokenizer(), alpha=alpha)
    method.needs = frozenset(needs)
    assert len(steps_of(method, epochs=1)) == 2


def test_a_second_fit_on_other_rows_has_its_own_start_and_says_so(caplog):
    method = DPO(make_llama(), tokenizer=make_tokenizer())
    steps_of(method, epochs=1)
    first = dict(method.reference.values)
    data = UnlearningDataModule(RETAIN[:3], FORGET, batch_size=3)
    trainer = Trainer(max_epochs=1, limit_val_batches=0, accelerator="cpu", **QUIET)
    with caplog.at_level("WARNING", logger="unlearun"):
        trainer.fit(method, datamodule=data)
    assert "its reference is the model as it is now" in " ".join(caplog.text.split())
    assert len(method.reference.values) == 6
    assert not set(first) & set(method.reference.values)
    with pytest.raises(UnlearunError, match="reference_way: weights"):
        method.training_step({"forget": random_batch_with_alternate(), "retain": random_batch()}, 0)


def random_batch_with_alternate():
    batch = random_batch(seed=1)
    batch.alternate = random_batch(seed=2)
    return batch
