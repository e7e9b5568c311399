"""The plain loop of the benchmark knows nothing of unlearun, so it says what every method must compute."""

from __future__ import annotations

import pytest
from conftest import FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer
from loops import KINDS, Work, apart, beside, ours

STEPS = 20


@pytest.fixture(scope="module", params=[make_llama, make_gpt2], ids=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    request.param(layers=3).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("method", KINDS)
def test_the_losses_of_every_step_are_those_of_the_plain_loop(folder, method):
    rows = [set_of * STEPS for set_of in (FORGET, RETAIN)]
    forget, retain = (some[: 2 * STEPS] for some in rows)
    work = Work(
        method, folder, forget, retain, STEPS, "64-true", layer=1, learning_rate=3e-4
    )  # Adam magnifies rounding
    found = ours(work)
    expected = beside(work, found.rows)
    assert len(found.losses) == len(expected.losses) == STEPS
    pairs = list(zip(found.losses, expected.losses, strict=True))
    assert apart(expected.losses[-1], expected.losses[0]) > 1e-3  # they have moved
    assert max(apart(*pair) for pair in pairs) < 1e-8
