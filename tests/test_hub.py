"""The hub is asked where it answers; elsewhere its cache is, at once."""

from __future__ import annotations

import socket
import time

import pytest
from huggingface_hub import constants

from unlearun.data import read_rows
from unlearun.errors import UnlearunError
from unlearun.hub import hub_answers, hub_or_cache
from unlearun.models import load_model, load_tokenizer


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
