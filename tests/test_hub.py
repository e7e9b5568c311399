"""The hub is asked where it answers; elsewhere its cache is, at once."""

from __future__ import annotations

import json
import socket
import time

import pytest
import torch
from conftest import make_llama, make_tokenizer
from huggingface_hub import constants

from unlearun.data import read_rows
from unlearun.errors import UnlearunError
from unlearun.hub import hub_answers, hub_or_cache
from unlearun.methods import GradDiff
from unlearun.models import load_model, load_tokenizer, save_model
from unlearun.models.loading import base_of, locate


@pytest.fixture
def endpoint(monkeypatch):
    """The address of a hub that answers, until the socket is closed."""
    server = socket.create_server(("127.0.0.1", 0))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.close()


def test_a_hub_that_listens_answers(endpoint):
    assert hub_answers()
    with hub_or_cache():
        assert not constants.is_offline_mode()


def test_where_none_listens_the_cache_is_all_there_is(endpoint):
    endpoint.close()
    assert not hub_answers()
    with hub_or_cache():
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()


def test_who_wants_no_network_is_not_asked(endpoint, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub_answers()


def test_behind_a_proxy_it_is_taken_for_granted(endpoint, monkeypatch):
    endpoint.close()
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert hub_answers()


@pytest.mark.parametrize("load", [load_model, load_tokenizer, lambda name: read_rows(name, "the forget set")])
def test_a_name_that_is_nowhere_is_an_error_at_once(load, endpoint):
    """The libraries alone take 23 s for each thing that they look for."""
    endpoint.close()
    start = time.monotonic()
    with pytest.raises(UnlearunError, match=r"the hub cannot be reached|could not be loaded as a dataset"):
        load("nobody/no-such-thing")
    assert time.monotonic() - start < 10


# ---- a pinned revision ------------------------------------------------------------------------------------------

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """What huggingface_hub keeps of a model of which two revisions were downloaded; the newer is main."""
    root = tmp_path / "hub" / "models--org--tiny"
    for revision, seed in ((REVISION, 0), ("f" * 40, 1)):
        folder = root / "snapshots" / revision
        make_llama(seed=seed).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("f" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return root


def test_a_revision_is_that_and_no_newer_one(cache):
    pinned, newer = load_model(f"org/tiny@{REVISION}"), load_model(f"org/tiny@{'f' * 40}")
    for model, seed in ((pinned, 0), (newer, 1)):
        expected = make_llama(seed=seed).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert load_tokenizer(f"org/tiny@{REVISION}")("ab").input_ids == make_tokenizer()("ab").input_ids


def test_a_branch_is_a_revision_too(cache):
    assert locate("org/tiny@main") == (str(cache / "snapshots" / ("f" * 40)), {})


def test_other_programs_are_told_the_name_of_the_hub(cache):
    assert base_of(f"org/tiny@{REVISION}") == ("org/tiny", REVISION)


def test_an_adapter_goes_back_to_the_revision_that_it_was_trained_beside(cache, tmp_path):
    """The newest one has other weights, beside which it says something else."""
    pytest.importorskip("peft", reason="needs peft")
    method = GradDiff(f"org/tiny@{REVISION}", lora={"r": 2})
    method.configure_model()
    save_model(method.model, None, tmp_path / "adapter", adapter=True)
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (said["base_model_name_or_path"], said["revision"]) == ("org/tiny", REVISION)
    expected = make_llama(seed=0).state_dict()  # a new adapter adds nothing
    merged = load_model(str(tmp_path / "adapter")).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in merged.items())


def test_a_revision_that_is_not_here_is_said(cache):
    with pytest.raises(UnlearunError, match=r"the model of 'org/tiny@aaaa' could not be loaded"):
        load_model("org/tiny@aaaa")


def test_a_folder_with_an_at_sign_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_llama().save_pretrained("a@b")
    assert locate("a@b") == ("a@b", {})


def test_what_is_handed_out_on_request_says_how_to_ask(monkeypatch):
    """Llama's weights, and WMDP's corpus of biology."""
    import datasets
    import transformers

    def refuse(*given, **settings):
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    for ask in (lambda: read_rows({"path": "cais/bio"}, "the forget set"), lambda: load_model("meta/llama")):
        with pytest.raises(UnlearunError, match="accept the terms on its page of the hub, then sign in here"):
            ask()
