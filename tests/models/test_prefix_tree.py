"""Several answers of a question run as one tree, and every number is that of rows of their own."""

from __future__ import annotations

import logging

import families
import pytest
import torch
import transformers as hf
from conftest import make_gpt2
from families import FAMILIES, VOCABULARY, make_family

from unlearun.data import Batch
from unlearun.models import Policy, policy, prefix_tree

WINDOWED = ("mistral", "gemma2", "gemma3")
FLOATS = ("logprobs", "mean", "deviation")


def make_batch(rows, left=False, extra=0):
    """A batch of (example id, prompt, answer)."""
    length = max(len(prompt + answer) for _, prompt, answer in rows) + extra
    ids, attention, labels = [], [], []
    for _, prompt, answer in rows:
        gap = length - len(prompt + answer)
        before, behind = (gap, 0) if left else (0, gap)
        ids.append([9] * before + prompt + answer + [9] * behind)
        attention.append([0] * before + [1] * (length - gap) + [0] * behind)
        labels.append([-100] * (before + len(prompt)) + answer + [-100] * behind)
    example_id = torch.tensor([example_id for example_id, _, _ in rows])
    return Batch(torch.tensor(ids), torch.tensor(attention), torch.tensor(labels), example_id)


LONG, SHORT = [3, 17, 4, 1, 22, 9, 30], [3, 17, 5]
ROWS = [
    (5, LONG, [11, 12, 13, 14]),
    (2, SHORT, [40, 41]),
    (5, LONG, [11, 12, 20]),  # branches off in the answer
    (-1, SHORT, [40, 41]),  # a filler has no partner, not even a filler
    (5, LONG, [33]),  # branches off at once
    (2, SHORT, [42, 43, 44, 45, 46, 47]),
    (5, LONG, [11, 12]),  # the beginning of others
    (-1, SHORT, [40, 41]),
    (5, LONG, [11, 12, 13, 14]),  # the first again
    (7, LONG, [11, 12, 13]),  # the prompt of another question
    (5, LONG, [13, 12, 13, 14, 15, 16]),
]
# Questions and fillers, and the nodes of the largest: 7 of the prompt, 4 of the first answer, then 1, 1 and 6.
PACKED = (5, 19)


def of_rows(model, batch):
    """Each row by itself, without padding, from the architecture's own logits."""
    stats = {name: torch.zeros(batch.labels.shape, dtype=model.dtype) for name in FLOATS}
    stats["hits"] = torch.zeros(batch.labels.shape, dtype=torch.bool)
    with torch.no_grad():
        for row, mask in enumerate(batch.attention_mask.bool()):
            scores = model(input_ids=batch.input_ids[row, mask].unsqueeze(0)).logits[0, :-1].log_softmax(-1)
            places = mask.nonzero().flatten()[1:]
            for lp, place in zip(scores, places, strict=True):
                if batch.labels[row, place] != -100:
                    mean = (lp.exp() * lp).sum()
                    stats["logprobs"][row, place] = lp[batch.labels[row, place]]
                    stats["hits"][row, place] = lp.argmax() == batch.labels[row, place]
                    stats["mean"][row, place] = mean
                    stats["deviation"][row, place] = (lp.exp() * (lp - mean) ** 2).sum().sqrt()
    return stats


def assert_right(stats, expected, tolerance=1e-10):
    for name, value in expected.items():
        torch.testing.assert_close(getattr(stats, name), value, rtol=tolerance, atol=tolerance)


class Sizes:
    """Notes how many tokens the network runs each time, and whether under autocast."""

    def __init__(self, model):
        self.seen, self.blurred = [], []
        model.base_model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _module, args, kwargs):
        self.seen.append(tuple((args[0] if args else kwargs["input_ids"]).shape))
        self.blurred.append(torch.is_autocast_enabled("cpu"))

    @property
    def last(self):
        return self.seen[-1]


def prefixes(batch):
    """All distinct beginnings: of a question's rows together, of each filler by itself."""
    found = set()
    for row, mask in enumerate(batch.attention_mask.bool()):
        tokens = tuple(batch.input_ids[row, mask].tolist())
        example_id = int(batch.example_id[row])
        owner = ("filler", row) if example_id < 0 else ("question", example_id)
        found |= {(owner, tokens[: i + 1]) for i in range(len(tokens))}
    return found


@pytest.mark.parametrize("left", [False, True])
def test_every_distinct_prefix_is_one_node_and_sees_its_own_path(left):
    batch = make_batch(ROWS, left, extra=2)
    real = batch.attention_mask.bool()
    tree = prefix_tree.prefix_tree(batch, torch.float64)
    all_prefixes = prefixes(batch)
    of_question = [sum(owner == o for o, _ in all_prefixes) for owner in {owner for owner, _ in all_prefixes}]
    assert tree.input_ids.shape == (len(of_question), max(of_question))  # five: three questions, two fillers
    assert len(of_question) == 5
    assert len(tree.nodes[real].unique()) == len(all_prefixes)

    seen = torch.block_diag(*(tree.mask[:, 0] == 0))  # over the flattened nodes
    for row in range(len(batch)):
        path = tree.nodes[row, real[row]].tolist()
        assert tree.input_ids.flatten()[path].tolist() == batch.input_ids[row, real[row]].tolist()
        assert tree.position_ids.flatten()[path].tolist() == list(range(len(path)))
        for depth, node in enumerate(path):
            assert set(seen[node].nonzero().flatten().tolist()) == set(path[: depth + 1])
    padding = torch.ones(tree.input_ids.numel(), dtype=torch.bool)
    padding[tree.nodes[real]] = False
    assert torch.equal(seen[padding], torch.eye(len(seen), dtype=torch.bool)[padding])
    assert set(tree.mask.unique().tolist()) == {0.0, torch.finfo(torch.float64).min}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_tree_gives_what_rows_of_their_own_give(family, attention, monkeypatch):
    """To 1e-10; eager attention takes its softmax in float32 even here."""
    if (family, attention) == ("gemma2", "sdpa"):
        pytest.skip("there is no such attention for Gemma 2")
    if family in WINDOWED:
        config = families.CONFIGS[family]()
        config.sliding_window = 30
        monkeypatch.setitem(families.CONFIGS, family, lambda: config)
    model = make_family(family)
    model.set_attn_implementation(attention)
    ran, network = Sizes(model), Policy(model)
    for left in (False, True):
        batch = make_batch(ROWS, left)
        expected = of_rows(model.eval(), batch)
        stats = network(batch, "stats")
        assert ran.last == PACKED
        assert_right(stats, expected, tolerance=1e-10 if attention == "sdpa" else 1e-5)


def without_ids(batch):
    return Batch(batch.input_ids, batch.attention_mask, batch.labels)


def test_float32_agrees_within_rounding():
    model = make_family("llama", torch.float32)
    ran, network = Sizes(model), Policy(model).eval()
    stats = network(make_batch(ROWS), "stats")
    assert ran.last == PACKED
    assert_right(stats, of_rows(model, make_batch(ROWS)), tolerance=2e-5)


@pytest.mark.parametrize("autocast", [True, False])
def test_low_precision_takes_the_tree_too(autocast):
    """Weights in bfloat16, or float32 ones under autocast, which the check itself is free of."""
    model = make_family("llama", torch.float32 if autocast else torch.bfloat16)
    ran, network = Sizes(model), Policy(model).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        plain = network(without_ids(make_batch(ROWS)), "stats")
        stats = network(make_batch(ROWS), "stats")
    assert ran.last == PACKED
    assert ran.blurred[-3:] == [False, False, autocast]
    for name in FLOATS:
        torch.testing.assert_close(getattr(stats, name), getattr(plain, name), rtol=0.05, atol=0.05)


def test_one_question_with_several_answers_among_others():
    rows = [(1, SHORT, [8]), (0, [*LONG, *LONG], [1, 2]), (3, SHORT, [7]), (0, [*LONG, *LONG], [2]), (4, SHORT, [6])]
    model = make_family("gpt2")
    ran, network = Sizes(model), Policy(model).eval()
    stats = network(make_batch(rows), "stats")
    assert ran.last == (4, 17)
    assert_right(stats, of_rows(model, make_batch(rows)))


@pytest.mark.parametrize(
    "rows",
    [
        [(0, LONG, [1]), (1, LONG, [2])],  # no question has two answers
        [(-1, LONG, [1]), (-1, LONG, [1])],
        [(0, SHORT, [1] * 9), (0, SHORT, [2] * 9), (1, SHORT, [3] * 9), (2, SHORT, [4] * 9)],  # 3 of 21, 4 of 12
    ],
)
def test_rows_are_run_as_they_are_where_a_tree_saves_nothing(rows):
    model = make_family("llama")
    ran, network = Sizes(model), Policy(model).eval()
    batch = make_batch(rows)
    stats = network(batch, "stats")
    assert ran.last == tuple(batch.input_ids.shape)
    assert_right(stats, of_rows(model, batch))


def test_only_statistics_are_taken_from_a_tree():
    model = make_family("llama")
    ran, network = Sizes(model), Policy(model)
    batch = make_batch(ROWS)
    for want in ("logprobs", "logits"):
        network(batch, want)
        assert ran.last == tuple(batch.input_ids.shape)


def test_gradients_through_the_tree_are_those_of_rows():
    model = make_family("gpt2")
    network = Policy(model)
    gradients = []
    for batch in (make_batch(ROWS), without_ids(make_batch(ROWS))):
        model.zero_grad()
        stats = network(batch, "stats")
        stats.logprobs.sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for tree, rows in zip(*gradients, strict=True):
        torch.testing.assert_close(tree, rows, rtol=1e-8, atol=1e-8)


def causal_mask(ends, dtype):
    size = ends.shape[1]
    return torch.full((len(ends), 1, size, size), torch.finfo(dtype).min, dtype=dtype).triu(1)


def test_siblings_and_positions_matter(monkeypatch):
    """So the tests above would fail if a branch saw its sibling, or counted its place for its depth."""
    model = make_family("llama")
    batch = make_batch(ROWS)
    answers = of_rows(model, batch)["logprobs"]
    assert (answers[0, 9] - answers[10, 9]).abs() > 0.1  # the same token after another sibling
    network = Policy(model).eval()
    monkeypatch.setattr(network, "_check_tree", lambda _batch: True)
    right = network(batch, "stats").logprobs
    torch.testing.assert_close(right, answers)
    with monkeypatch.context() as patch:
        patch.setattr(prefix_tree, "_mask", causal_mask)
        assert (network(batch, "stats").logprobs - right).abs().max() > 0.1

    def in_sequence(*args):
        tree = prefix_tree.prefix_tree(*args)
        return tree._replace(position_ids=torch.arange(tree.input_ids.shape[1]).expand_as(tree.input_ids))

    monkeypatch.setattr(policy, "prefix_tree", in_sequence)
    monkeypatch.setattr(policy, "fits", lambda *_: True)
    assert (network(batch, "stats").logprobs - right).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_check_notices_a_model_that_lets_siblings_see_each_other(dtype, monkeypatch):
    monkeypatch.setattr(prefix_tree, "_mask", causal_mask)
    model = make_family("llama", dtype)
    ran, network = Sizes(model), Policy(model).eval()
    network(make_batch(ROWS), "stats")
    assert ran.last == (11, 13)


SMALL = {"vocab_size": VOCABULARY, "initializer_range": 0.2}
OTHERS = {
    "bloom": lambda: hf.BloomConfig(**SMALL, hidden_size=32, n_layer=2, n_head=4),
    "mpt": lambda: hf.MptConfig(**SMALL, d_model=32, n_layers=2, n_heads=4),
    "mamba": lambda: hf.MambaConfig(**SMALL, hidden_size=32, num_hidden_layers=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_architectures_that_cannot_branch_run_rows_of_their_own(name, caplog):
    """ALiBi counts places in the sequence, and a recurrent model reads through the siblings."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(OTHERS[name]()).double()
    ran, network = Sizes(model), Policy(model)
    with caplog.at_level(logging.INFO, "unlearun"):
        for _ in range(2):
            stats = network(make_batch(ROWS), "stats")
    assert ran.last == (11, 13)
    assert len(ran.seen) <= 6  # two for the head, two for the check, two batches: it is not asked again
    assert model.training
    assert_right(stats, of_rows(model.eval(), make_batch(ROWS)), tolerance=1e-5)
    assert [record.levelname for record in caplog.records if "rows of their own" in record.message] == ["INFO"]


def test_another_attention_than_sdpa_and_eager_is_not_tried(monkeypatch):
    """Flash attention takes no mask of four dimensions; some kernels would read past its end."""
    model = make_family("llama")
    network = Policy(model).eval()
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    ran = Sizes(model)
    assert network._check_tree(make_batch(ROWS)) is False
    assert not ran.seen


LIMITED = {
    "sliding_window": lambda: hf.MistralConfig(**families.GROUPED, sliding_window=13),
    "window_size": lambda: hf.GPTNeoConfig(
        **SMALL,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=64,
        window_size=19,
        attention_types=[[["global", "local"], 1]],
        bos_token_id=0,
        eos_token_id=0,
    ),
    "max_position_embeddings": lambda: hf.GPTNeoConfig(
        **SMALL,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=19,
        attention_types=[[["global", "local"], 1]],
        bos_token_id=0,
        eos_token_id=0,
    ),
}


@pytest.mark.parametrize("limit", LIMITED)
def test_a_window_shorter_than_the_longest_row_is_for_rows(limit):
    """GPT-Neo's counts places, so for it the tree itself must not be longer."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(LIMITED[limit]()).double().eval()
    ran, network = Sizes(model), Policy(model).eval()
    longer = [*ROWS, (5, LONG, [50, 51, 52, 53, 54, 55, 56])]
    for rows, size in ((ROWS, PACKED), (longer, (12, 14))):
        batch = make_batch(rows)
        expected = of_rows(model, batch)
        stats = network(batch, "stats")
        assert ran.last == size
        assert_right(stats, expected, tolerance=1e-5)  # GPT-Neo takes its softmax in float32


def test_a_window_that_is_not_used_limits_nothing():
    tree = prefix_tree.prefix_tree(make_batch(ROWS), torch.float32)
    config = hf.Qwen2Config(**families.COMMON)
    config.sliding_window = 4
    for used in (True, False):
        config.use_sliding_window = used
        assert prefix_tree.fits(tree, config) is not used
    config.attention_chunk_size = 12
    assert not prefix_tree.fits(tree, config)


def test_the_check_is_without_dropout_and_restores_the_mode():
    model = make_gpt2(dropout=0.5)
    ran, network = Sizes(model), Policy(model)
    batch = make_batch(ROWS)
    first = network(batch, "stats").logprobs
    assert ran.last == PACKED
    assert all(module.training for module in network.modules())
    assert not torch.allclose(first, network(batch, "stats").logprobs)
    assert_right(network.eval()(batch, "stats"), of_rows(model, batch), tolerance=2e-5)


def test_the_check_has_no_gradient_and_draws_no_random_number():
    network = Policy(make_gpt2(dropout=0.5))
    state = torch.get_rng_state()
    assert network._check_tree(make_batch(ROWS))
    assert torch.equal(torch.get_rng_state(), state)
    assert network._check_tree(make_batch([(0, [], [5])]))  # fewer tokens than it wants
