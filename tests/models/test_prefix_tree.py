"""Rows run as few packed sequences, and every number and gradient is that of rows of their own."""

from __future__ import annotations

import logging
import random

import families
import pytest
import torch
import transformers as hf
from conftest import make_gpt2
from families import FAMILIES, LAYERS, VOCABULARY, WIDTH, make_family

from unlearun.data import Batch
from unlearun.models import Policy, policy, prefix_tree

WINDOWED = ("mistral", "gemma2", "gemma3")
FLOATS = ("logprobs", "mean", "deviation")


def make_batch(rows, left=False, extra=0):
    """A batch of (prompt, answer)."""
    length = max(len(prompt + answer) for prompt, answer in rows) + extra
    ids, attention, labels = [], [], []
    for prompt, answer in rows:
        gap = length - len(prompt + answer)
        before, behind = (gap, 0) if left else (0, gap)
        ids.append([9] * before + prompt + answer + [9] * behind)
        attention.append([0] * before + [1] * (length - gap) + [0] * behind)
        labels.append([-100] * (before + len(prompt)) + answer + [-100] * behind)
    return Batch(torch.tensor(ids), torch.tensor(attention), torch.tensor(labels))


LONG, SHORT = [3, 17, 4, 1, 22, 9, 30], [3, 17, 5]
ROWS = [
    (LONG, [11, 12, 13, 14]),
    (SHORT, [40, 41]),
    (LONG, [11, 12, 20]),  # branches off in the answer
    (LONG, [33]),  # branches off at once
    (SHORT, [42, 43, 44, 45, 46, 47]),
    (LONG, [11, 12]),  # the beginning of others
    (LONG, [11, 12, 13, 14]),  # the first again
    (LONG, [13, 12, 13, 14, 15, 16]),
]
# Nodes: 2 of all; 5 more of the long prompt, 4 of its first answer, then 1, 1 and 6; 1, 2 and 6 of the rest.
PACKED = (1, 28)
# Of twelve questions with three answers each, too many for one sequence.
MANY = [
    ([1, 2, 3, 4, *[10 + question] * 8], [20 + question + branch] * (4 + question % 3 + branch))
    for question in range(12)
    for branch in range(3)
]
TINY = hf.LlamaConfig(hidden_size=WIDTH)


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


def of_rows(model, batch, layer=1):
    """Each row by itself, without padding, from the architecture's own logits and states."""
    found = {name: torch.zeros(batch.labels.shape, dtype=model.dtype) for name in FLOATS}
    found["hits"] = torch.zeros(batch.labels.shape, dtype=torch.bool)
    found["hidden"] = torch.zeros(*batch.labels.shape, WIDTH, dtype=model.dtype)
    logits = []
    for row, mask in enumerate(batch.attention_mask.bool()):
        output = model(input_ids=batch.input_ids[row, mask].unsqueeze(0), output_hidden_states=True, use_cache=False)
        found["hidden"][row, mask] = output.hidden_states[layer + 1][0]
        places = mask.nonzero().flatten()[1:]
        for scores, place in zip(output.logits[0, :-1], places, strict=True):
            if batch.labels[row, place] != -100:
                lp = scores.log_softmax(-1)
                mean = (lp.exp() * lp).sum()
                logits.append(scores)
                found["logprobs"][row, place] = lp[batch.labels[row, place]]
                found["hits"][row, place] = lp.argmax() == batch.labels[row, place]
                found["mean"][row, place] = mean
                found["deviation"][row, place] = (lp.exp() * (lp - mean) ** 2).sum().sqrt()
    found["logits"] = torch.stack(logits)
    return found


def of_policy(network, batch, layer=1):
    """The same by one forward for each that is wanted; states of the padding are put to 0."""
    stats = network(batch, "stats")
    hidden = network(batch, "hidden", layer)
    assert hidden.isfinite().all()
    found = {name: getattr(stats, name) for name in (*FLOATS, "hits")}
    found["logits"] = network(batch, "logits")
    found["hidden"] = hidden * batch.attention_mask.unsqueeze(-1)
    torch.testing.assert_close(network(batch, "logprobs"), stats.logprobs, rtol=1e-6, atol=1e-6)
    found["logprobs"] = network(batch, "logprobs")
    return found


def assert_right(found, expected, tolerance=1e-10):
    for name, value in expected.items():
        got = found[name] if isinstance(found, dict) else getattr(found, name, value)
        torch.testing.assert_close(got, value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def gradients(model, found):
    """Of all parameters, of a sum in which every number that is wanted has another weight."""
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (torch.randn(found[name].shape, generator=generator, dtype=torch.float64) * found[name]).sum()
        for name in ("logprobs", "logits", "hidden")
    )
    model.zero_grad()
    total.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def prefixes(rows):
    """All distinct beginnings."""
    return {tuple(row[: i + 1]) for row in rows for i in range(len(row))}


# ---- dealing --------------------------------------------------------------------------------------------------------


def dealt(rows, config=TINY):
    """Check what must be true of any deal, and return its groups and the nodes of each."""
    length = max(map(len, rows))
    groups = prefix_tree.deal(rows, length, config)
    if groups is None:
        return None, []
    assert sorted(row for group in groups for row in group) == list(range(len(rows)))
    nodes = [len(prefixes([rows[i] for i in group])) for group in groups]
    width = config.hidden_size
    assert prefix_tree.cost(len(groups), max(nodes), width) < 0.95 * prefix_tree.cost(len(rows), length, width)
    return groups, nodes


def some_rows(count, shared, mean, seed=0, first=100):
    """Rows of random tokens and lengths after a common beginning."""
    draw = random.Random(seed)
    begin = [draw.randrange(first) for _ in range(shared)]
    return [begin + [draw.randrange(first) for _ in range(round(mean * draw.uniform(0.6, 1.4)))] for _ in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_a_training_batch_are_balanced_and_a_system_prompt_is_once_in_each(seed):
    rows = some_rows(8, 30, 50, seed, first=10**6)
    groups, nodes = dealt(rows, hf.LlamaConfig(hidden_size=576))
    assert 1 <= len(groups) <= 4
    once = len(prefixes(rows))
    assert sum(nodes) == once + (len(groups) - 1) * 30
    assert len(groups) * max(nodes) < 1.03 * sum(nodes)
    assert len(groups) * max(nodes) < 0.67 * len(rows) * max(map(len, rows))


@pytest.mark.parametrize("seed", range(4))
def test_answers_of_a_question_stay_together(seed):
    """Eight questions of about 20 tokens after a system prompt, seven answers each."""
    questions = some_rows(8, 30, 20, seed)
    rows = [question + answer for question in questions for answer in some_rows(7, 0, 25, len(question))]
    random.Random(seed).shuffle(rows)
    groups, nodes = dealt(rows, hf.LlamaConfig(hidden_size=576))
    assert len(groups) > 1
    for question in questions:
        inside = [any(rows[i][: len(question)] == question for i in group) for group in groups]
        assert sum(inside) == 1
    assert len(groups) * max(nodes) < 1.1 * len(prefixes(rows))


def test_of_all_numbers_of_groups_the_cheapest_is_taken(monkeypatch):
    rows = some_rows(12, 10, 30)
    tried = {}

    def noted(sequences, length, width):
        found = cost(sequences, length, width)
        tried[sequences] = min(found, tried.get(sequences, found))
        return found

    cost = prefix_tree.cost
    monkeypatch.setattr(prefix_tree, "cost", noted)
    groups = prefix_tree.deal(rows, 50, TINY)
    assert set(range(1, 13)) <= tried.keys()
    assert tried[len(groups)] == min(tried.values())


def test_longer_sequences_cost_more_than_their_tokens_and_more_so_in_narrow_models():
    narrow, wide = (prefix_tree.cost(1, 400, width) / prefix_tree.cost(4, 100, width) for width in (32, 4096))
    assert narrow > 2
    assert 1 < wide < 1.1


@pytest.mark.parametrize(
    "rows",
    [
        some_rows(1, 0, 20),
        [[i] * 20 for i in range(8)],  # nothing shared, nothing padded
        [[1, *[2 + i] * 19] for i in range(4)],  # a token in twenty is shared, but attention would look at more
        [[]],
    ],
)
def test_rows_are_left_as_they_are_where_packing_saves_nothing(rows):
    assert prefix_tree.deal(rows, max(map(len, rows)), TINY) is None


def test_padding_alone_is_worth_packing():
    """One long row and many short ones that share nothing: groups of about the long one's size."""
    rows = [[0] * 40, *([1 + i] * 8 for i in range(9))]
    groups, nodes = dealt(rows)
    assert max(nodes) == 40
    assert len(groups) == 3  # 40, then 9 · 8 = 72 in two
    assert max(len(group) for group in groups) <= 5


def test_no_group_is_larger_than_the_architecture_can_take():
    rows = some_rows(16, 20, 10)
    groups, nodes = dealt(rows)
    limit = max(nodes) - 1
    narrower, nodes = dealt(rows, hf.LlamaConfig(hidden_size=WIDTH, max_position_embeddings=limit))
    assert max(nodes) <= limit
    assert len(narrower) > len(groups)
    config = hf.LlamaConfig(hidden_size=WIDTH, sliding_window=max(map(len, rows)) - 1)
    assert prefix_tree.deal(rows, max(map(len, rows)), config) is None


@pytest.mark.parametrize("name", ["sliding_window", "attention_chunk_size"])
def test_a_window_must_hold_the_longest_row_and_a_buffer_the_largest_group(name):
    config = hf.Qwen2Config(**families.COMMON)  # of 64 positions
    assert prefix_tree.fits(50, 64, config)
    assert not prefix_tree.fits(50, 65, config)
    config.use_sliding_window = True
    setattr(config, name, 50)
    assert prefix_tree.fits(50, 64, config)
    assert not prefix_tree.fits(51, 64, config)
    config.use_sliding_window = False  # so the first is not used
    assert prefix_tree.fits(51, 64, config) is (name == "sliding_window")


# ---- packing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [[list(range(8))], [[3, 0, 6], [1, 5], [7, 4, 2]]])
@pytest.mark.parametrize("left", [False, True])
def test_every_distinct_prefix_is_one_node_and_sees_its_own_path(left, groups):
    batch = make_batch(ROWS, left, extra=2)
    real = batch.attention_mask.bool()
    tree = prefix_tree.prefix_tree(batch, groups, torch.float64)
    rows = prefix_tree.token_rows(batch)
    assert rows == [prompt + answer for prompt, answer in ROWS]
    counts = [len(prefixes([rows[i] for i in group])) for group in groups]
    assert tree.input_ids.shape == (len(groups), max(counts))
    assert len(tree.nodes[real].unique()) == sum(counts)
    assert not tree.nodes[~real].any()

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


def test_a_beginning_common_to_all_rows_is_one_path():
    """Nodes are distinct prefixes: 2 of all, 5 of the long prompt, and the branches, counted by hand at ROWS."""
    rows = prefix_tree.token_rows(make_batch(ROWS))
    assert len(prefixes(rows)) == PACKED[1]
    tree = prefix_tree.prefix_tree(make_batch(ROWS), prefix_tree.deal(rows, 13, TINY), torch.float64)
    assert tree.input_ids.shape == PACKED
    assert len(tree.nodes[:, :2].unique()) == 2


# ---- running --------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_double(monkeypatch):
    """Norms, rotary embeddings and eager softmax are computed in what they ask for by the name of float32."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def widened(family, monkeypatch):
    """A window that the rows fit."""
    if family in WINDOWED:
        config = families.CONFIGS[family]()
        config.sliding_window = 30
        monkeypatch.setitem(families.CONFIGS, family, lambda: config)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("in_double")
def test_packed_rows_give_the_values_and_gradients_of_rows_of_their_own(family, attention, monkeypatch):
    """In training; to 1e-10 and 1e-8."""
    if (family, attention) == ("gemma2", "sdpa"):
        pytest.skip("there is no such attention for Gemma 2")
    widened(family, monkeypatch)
    model = make_family(family)
    model.set_attn_implementation(attention)
    ran, network = Sizes(model), Policy(model)
    for rows, left, packed in ((ROWS, False, PACKED), (ROWS, True, PACKED), (MANY, False, (6, 56))):
        batch = make_batch(rows, left)
        expected = of_rows(model, batch)
        found = of_policy(network, batch)
        assert ran.last == packed
        assert_right(found, expected)
        right = gradients(model, expected)
        for name, value in gradients(model, found).items():
            torch.testing.assert_close(value, right[name], rtol=1e-8, atol=1e-8, msg=name)


@pytest.mark.parametrize("layer", range(LAYERS - 1))
def test_states_of_a_cut_layer_are_taken_from_packed_rows(layer):
    """And no layer behind it runs."""
    model = make_family("llama")
    batch = make_batch(ROWS)
    expected = of_rows(model, batch, layer)["hidden"]
    ran, network = Sizes(model), Policy(model)
    network(batch, "hidden", layer)
    later = []
    model.model.layers[layer + 1].register_forward_hook(lambda *_: later.append(1))
    hidden = network(batch, "hidden", layer)
    assert ran.last == PACKED
    assert not later
    torch.testing.assert_close(hidden * batch.attention_mask.unsqueeze(-1), expected, rtol=1e-10, atol=1e-10)


def test_float32_agrees_within_rounding():
    """Values to 2e-5, the gradient of each parameter to 1e-5 of its length."""
    model = make_family("llama", torch.float32)
    ran, network = Sizes(model), Policy(model)
    batch = make_batch(ROWS)
    expected, found = of_rows(model, batch), of_policy(network, batch)
    assert ran.last == PACKED
    assert_right(found, expected, tolerance=2e-5)
    right = gradients(model, expected)
    for name, value in gradients(model, found).items():
        assert (value - right[name]).norm() <= 1e-5 * right[name].norm(), name


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_changes_nothing():
    batch, found = make_batch(ROWS), []
    for checkpointing in (False, True):
        model = make_family("llama-tied")
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        ran, network = Sizes(model), Policy(model)
        found.append(gradients(model, of_policy(network, batch)))
        assert ran.last == PACKED
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-12, atol=1e-12)


def test_example_ids_order_and_padding_change_nothing():
    """Content alone decides what is shared."""
    model = make_family("llama")
    network = Policy(model).eval()
    batch = make_batch(ROWS)
    expected = of_policy(network, batch)
    for ids in ([-1] * 8, list(range(8)), [0] * 8):
        batch.example_id = torch.tensor(ids)
        assert_right(of_policy(network, batch), expected, tolerance=0)
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    turned = of_policy(network, make_batch([ROWS[i] for i in order], extra=3))
    for name in (*FLOATS, "hits", "hidden"):
        torch.testing.assert_close(turned[name][:, :-3], expected[name][order], rtol=1e-12, atol=1e-12)


def test_fillers_and_rows_without_labels_give_zeros():
    model = make_family("llama")
    batch = make_batch(ROWS)
    batch.labels[[0, 4]] = -100
    expected = of_rows(model, batch)
    ran, network = Sizes(model), Policy(model)
    assert_right(of_policy(network, batch), expected)
    assert not network(batch, "logprobs")[[0, 4]].any()
    batch.labels.fill_(-100)
    assert not network(batch, "logprobs").any()
    assert network(batch, "logits").shape == (0, VOCABULARY)
    assert ran.last == PACKED


@pytest.mark.parametrize("rows", [[([i] * 6, [i + 1] * 6) for i in range(5)], [([1, 2, 3], [4, 5])]])
def test_rows_that_share_nothing_run_as_they_are(rows):
    model = make_family("llama")
    batch = make_batch(rows)
    expected = of_rows(model, batch)
    ran, network = Sizes(model), Policy(model)
    network(batch, "logprobs")
    ran.seen.clear()
    assert_right(of_policy(network, batch), expected)
    assert ran.seen[0] == ran.last == batch.input_ids.shape


def test_it_can_be_switched_off(caplog):
    model = make_family("llama")
    batch = make_batch(ROWS)
    ran, network = Sizes(model), Policy(model, share_prefixes=False)
    with caplog.at_level(logging.INFO, "unlearun"):
        assert_right(of_policy(network, batch), of_rows(model, batch))
    assert PACKED not in ran.seen
    assert "LlamaForCausalLM runs rows of their own" in caplog.messages


def test_what_is_done_is_said_once(caplog):
    network = Policy(make_family("llama"))
    with caplog.at_level(logging.INFO, "unlearun"):
        for _ in range(2):
            network(make_batch(ROWS), "logprobs")
    assert caplog.messages == ["LlamaForCausalLM runs what rows begin with alike once"]


@pytest.mark.parametrize("autocast", [True, False])
def test_low_precision_is_packed_too(autocast):
    """Weights in bfloat16, or float32 ones under autocast, which the check itself is free of."""
    model = make_family("llama", torch.float32 if autocast else torch.bfloat16)
    ran, network = Sizes(model), Policy(model)
    batch = make_batch(ROWS)
    found = []
    for shared in (True, False):
        network = Policy(model, shared)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            stats = network(batch, "stats")._asdict()
            logprobs = network(batch, "logprobs")
        model.zero_grad()
        logprobs.sum().backward()
        gradient = torch.cat([parameter.grad.float().flatten() for parameter in model.parameters()])
        found.append((stats, gradient))
        if shared:
            assert ran.last == PACKED
            assert ran.blurred[-4:] == [False, False, autocast, autocast]
    for name in FLOATS:
        torch.testing.assert_close(found[0][0][name], found[1][0][name], rtol=0.05, atol=0.05)
    assert (found[0][1] - found[1][1]).norm() < 0.05 * found[1][1].norm()


# ---- dropout --------------------------------------------------------------------------------------------------------


def with_dropout(name):
    """A model whose dropout is a module, or a number that its attention reads."""
    if name == "gpt2":
        return make_gpt2(dropout=0.5)
    config = families.CONFIGS["llama"]()
    config.attention_dropout = 0.5
    return hf.LlamaForCausalLM(config)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_rows_share_no_dropout(name):
    """In training each row runs by itself, in evaluation they share."""
    model = with_dropout(name)
    ran, network = Sizes(model), Policy(model)
    batch = make_batch(ROWS)
    assert not torch.allclose(network(batch, "logprobs"), network(batch, "logprobs"))
    assert ran.last == (8, 13)
    network(batch, "hidden", 0)
    assert ran.last == (8, 13)
    assert all(module.training for module in network.modules())
    found = network.eval()(batch, "logprobs")
    assert ran.last == PACKED
    torch.testing.assert_close(found, of_rows(model, batch)["logprobs"], rtol=2e-5, atol=2e-5)


def test_dropout_of_zero_is_none():
    model = make_gpt2()
    assert model.config.summary_first_dropout > 0  # of a head that a causal LM lacks
    assert any(isinstance(module, torch.nn.Dropout) for module in model.modules())
    ran, network = Sizes(model), Policy(model)
    network(make_batch(ROWS), "logprobs")
    assert ran.last == PACKED


def test_the_check_has_no_gradient_and_draws_no_random_number():
    network = Policy(make_gpt2(dropout=0.5))
    state = torch.get_rng_state()
    assert network._check_tree(make_batch(ROWS))
    assert torch.equal(torch.get_rng_state(), state)
    assert network._check_tree(make_batch([([], [5])]))  # fewer tokens than it wants


# ---- architectures --------------------------------------------------------------------------------------------------


def causal_mask(ends, dtype):
    size = ends.shape[1]
    return torch.full((len(ends), 1, size, size), torch.finfo(dtype).min, dtype=dtype).triu(1)


def test_siblings_and_positions_matter(monkeypatch):
    """So the tests above would fail if a branch saw its sibling, or counted its place for its depth."""
    model = make_family("llama")
    batch = make_batch(ROWS)
    answers = of_rows(model, batch)["logprobs"]
    assert (answers[0, 9] - answers[7, 9]).abs() > 0.1  # the same token after another sibling
    network = Policy(model).eval()
    monkeypatch.setattr(network, "_check_tree", lambda _batch: True)
    right = network(batch, "logprobs")
    torch.testing.assert_close(right, answers)
    with monkeypatch.context() as patch:
        patch.setattr(prefix_tree, "_mask", causal_mask)
        assert (network(batch, "logprobs") - right).abs().max() > 0.1

    def in_sequence(*args):
        tree = prefix_tree.prefix_tree(*args)
        return tree._replace(position_ids=torch.arange(tree.input_ids.shape[1]).expand_as(tree.input_ids))

    monkeypatch.setattr(policy, "prefix_tree", in_sequence)
    assert (network(batch, "logprobs") - right).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_check_notices_a_model_that_lets_siblings_see_each_other(dtype, monkeypatch):
    monkeypatch.setattr(prefix_tree, "_mask", causal_mask)
    model = make_family("llama", dtype)
    ran, network = Sizes(model), Policy(model)
    network(make_batch(ROWS), "stats")
    assert ran.last == (8, 13)


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
    batch = make_batch(ROWS)
    with caplog.at_level(logging.INFO, "unlearun"):
        for _ in range(2):
            stats = network(batch, "stats")
    assert ran.last == (8, 13)
    assert len(ran.seen) <= 6  # two for the head, two for the check, two batches: it is not asked again
    assert model.training
    expected = of_rows(model.eval(), batch)
    assert_right(stats, {name: expected[name] for name in (*FLOATS, "hits")}, tolerance=1e-5)
    assert [message for message in caplog.messages if message.endswith("runs rows of their own")]


def test_the_check_is_made_for_the_layers_that_run():
    """Layers of another kind behind a cut say nothing about those before it, nor those before it about them."""
    model = make_family("llama")

    def mix(_module, _inputs, output):
        return output + output.mean(1, keepdim=True)

    model.model.layers[3].register_forward_hook(mix)
    ran, network = Sizes(model), Policy(model)
    batch = make_batch(ROWS)
    for _ in range(2):
        network(batch, "hidden", 1)
        assert ran.last == PACKED
        network(batch, "logprobs")
        assert ran.last == (8, 13)


def test_another_attention_than_sdpa_and_eager_is_not_tried(monkeypatch):
    """Flash attention takes no mask of four dimensions; some kernels would read past its end."""
    model = make_family("llama")
    network = Policy(model).eval()
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    ran = Sizes(model)
    assert network._check_tree(make_batch(ROWS)) is False
    assert not ran.seen


GPT_NEO = {**SMALL, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "bos_token_id": 0, "eos_token_id": 0}
GPT_NEO |= {"attention_types": [[["global", "local"], 1]]}
LIMITED = {
    "sliding_window": lambda: hf.MistralConfig(**families.GROUPED, sliding_window=13),
    "window_size": lambda: hf.GPTNeoConfig(**GPT_NEO, max_position_embeddings=64, window_size=29),
    "max_position_embeddings": lambda: hf.GPTNeoConfig(**GPT_NEO, max_position_embeddings=29, window_size=64),
}


@pytest.mark.parametrize("limit", LIMITED)
def test_a_window_shorter_than_the_longest_row_is_for_rows(limit):
    """GPT-Neo's counts places, so for it a group must not be longer, and there must be more of them."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(LIMITED[limit]()).double().eval()
    ran, network = Sizes(model), Policy(model).eval()
    longer = [*ROWS, (LONG, [50, 51, 52, 53, 54, 55, 56])]
    for rows, size in ((ROWS, PACKED), (longer, (9, 14) if limit == "sliding_window" else (2, 26))):
        batch = make_batch(rows)
        expected = of_rows(model, batch)
        stats = network(batch, "stats")
        assert ran.last == size
        wanted = {name: expected[name] for name in (*FLOATS, "hits")}
        assert_right(stats, wanted, tolerance=1e-5)  # GPT-Neo takes its softmax in float32
