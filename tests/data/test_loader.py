from __future__ import annotations

import pytest
import torch
from conftest import FORGET, RETAIN, make_tokenizer
from lightning.fabric.utilities.data import _set_sampler_epoch

from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError


def make_loader(workers=0):
    data = UnlearningDataModule(FORGET, RETAIN, batch_size=1, num_workers=workers, seed=1)
    data.connect(make_tokenizer())
    return data.train_dataloader().flattened[1]


def ids(batches):
    return [batch.example_id.tolist() for batch in batches]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_behind_the_last_batch_that_was_handed_out(workers):
    """Workers have made more batches by then; they do not count."""
    loader = make_loader(workers)
    _set_sampler_epoch(loader, 3)
    whole = ids(loader)
    assert len(whole) == 4
    batches = iter(loader)
    next(batches), next(batches)
    state = loader.state_dict()
    assert state == {"epoch": 3, "batches": 2, "together": 1}
    other = make_loader(workers)
    other.load_state_dict(state)
    iterator = iter(other)  # Lightning makes it before it tells the epoch
    _set_sampler_epoch(other, 3)
    assert ids(iterator) == whole[2:]
    _set_sampler_epoch(other, 4)
    assert len(ids(other)) == 4


def test_a_place_in_another_epoch_is_its_end():
    loader = make_loader()
    loader.load_state_dict({"epoch": 0, "batches": 4, "together": 2})
    _set_sampler_epoch(loader, 1)
    assert len(ids(loader)) == 4


def test_a_place_within_an_epoch_is_of_no_use_to_other_batches():
    loader = make_loader()
    loader.load_state_dict({"epoch": 0, "batches": 1, "together": 2})
    with pytest.raises(UnlearunError, match="batches of 2 rows over all processes, and would go on with 1"):
        ids(loader)


def test_loading_takes_nothing_from_the_global_random_state():
    loader = make_loader()
    before = torch.get_rng_state()
    ids(loader)
    assert torch.equal(torch.get_rng_state(), before)
