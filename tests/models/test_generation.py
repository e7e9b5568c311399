"""Greedy answers in batches equal those of a loop that makes one token of one question at a time."""

from __future__ import annotations

import pytest
import torch
from conftest import CHARACTERS, FORGET, RETAIN, make_gpt2, make_llama, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from unlearun.data import Formatter, Item, prompt_length
from unlearun.models import Policy, answers_of
from unlearun.models.generation import continue_prompts

# Of very different lengths, so that a batch has much padding on the left.
QUESTIONS = ["Why?", "Where does the old man in the red boat by the sea live?", "Who?", "What is it, Anna?"]
CHAT = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def lively(model, ends=(), push=0.0, seed=0):
    """Weights large enough that the answers differ; ``push`` turns the head towards the end tokens."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for end in ends:
            model.get_output_embeddings().weight[end] *= push
    return model


def make_examples(formatter, questions):
    items = [Item(f"row {i}", question, "x") for i, question in enumerate(questions)]
    return formatter.format_all(items, "test")[0]


@torch.no_grad()
def answer_by_hand(model, tokenizer, prompt, ends, max_new_tokens):
    """No padding, no cache, no generate(): the argmax of the last position, again and again."""
    model.eval()
    ids, new = list(prompt), []
    while len(new) < max_new_tokens:
        token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
        new.append(token)
    return tokenizer.decode(new, skip_special_tokens=True).strip(), len(new)


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_equals_a_loop_by_hand(make, batch_size):
    """Some answers end by themselves and some are cut at 12 tokens; the order is that of the questions."""
    tokenizer = make_tokenizer()
    end = tokenizer.eos_token_id
    model = lively(make(), [end], push=1.6)
    formatter = Formatter(tokenizer)
    examples = make_examples(formatter, QUESTIONS + [row["question"] for row in FORGET + RETAIN])
    by_hand = [answer_by_hand(model, tokenizer, e.input_ids[: e.start], [end], 12) for e in examples]
    lengths = {length for _, length in by_hand}
    assert 12 in lengths, "no answer reaches the limit: choose other weights"
    assert min(lengths) < 12, "no answer ends by itself: choose other weights"
    assert len({text for text, _ in by_hand}) > 5
    got = answers_of(Policy(model), formatter, examples, max_new_tokens=12, batch_size=batch_size)
    assert got == [text for text, _ in by_hand]
    assert not any("<eos>" in text for text in got)


def test_order_and_count_are_kept():
    tokenizer = make_tokenizer()
    model = lively(make_llama())
    formatter = Formatter(tokenizer)
    examples = make_examples(formatter, QUESTIONS)
    policy = Policy(model)
    forward = answers_of(policy, formatter, examples, max_new_tokens=5, batch_size=2)
    backward = answers_of(policy, formatter, examples[::-1], max_new_tokens=5, batch_size=3)
    assert forward == backward[::-1]
    assert len(set(forward)) > 1
    assert answers_of(policy, formatter, [], max_new_tokens=5) == []


def test_the_answer_is_not_read():
    """Only the prompt goes in: rows that differ in their answers alone are answered alike."""
    tokenizer = make_tokenizer()
    formatter = Formatter(tokenizer)
    items = [Item("row", "Who is Carl?", answer) for answer in ("A baker.", "Nobody at all, they say.")]
    examples = formatter.format_all(items, "test")[0]
    first, second = answers_of(Policy(lively(make_llama())), formatter, examples, max_new_tokens=8)
    assert first == second


@pytest.mark.parametrize(("length", "kept", "left"), [(80, 32, 49), (10, 6, 5)])
def test_plain_text_is_continued(length, kept, left):
    """After 32 tokens at most; a text of 10 and its eos, 11 tokens, after the larger half, 6, and to its own end."""
    tokenizer = make_tokenizer()
    formatter = Formatter(tokenizer)
    text = ("The sea was calm and the boats lay still. " * 2)[:length]
    examples = formatter.format_all([Item("row", None, text)], "test")[0]
    model = lively(make_llama())
    expected, _ = answer_by_hand(
        model, tokenizer, tokenizer(text)["input_ids"][:kept], [tokenizer.eos_token_id], min(9, left)
    )
    assert answers_of(Policy(model), formatter, examples, max_new_tokens=9) == [expected]


def make_chat():
    """A tokenizer whose turns end with a token of their own, beside eos, and a model for it."""
    tokenizer = make_tokenizer(CHAT)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(CHARACTERS) + 2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return tokenizer, LlamaForCausalLM(config)


def test_either_end_token_ends_a_chat_answer():
    """The chat template's end of a turn, and the tokenizer's eos."""
    tokenizer, model = make_chat()
    formatter = Formatter(tokenizer)
    ends = [tokenizer.convert_tokens_to_ids("<end>"), tokenizer.eos_token_id]
    assert formatter.end_id == ends[0]
    assert ends[0] != ends[1]
    model = lively(model, ends, push=1.6)
    examples = make_examples(formatter, QUESTIONS + [row["question"] for row in FORGET + RETAIN])
    by_hand = [answer_by_hand(model, tokenizer, e.input_ids[: e.start], ends, 12) for e in examples]
    ended_by = {
        answer_by_hand(model, tokenizer, e.input_ids[: e.start], [end], 12)[1] == length
        for e, (_, length) in zip(examples, by_hand, strict=True)
        for end in ends
        if length < 12
    }
    assert ended_by == {True, False}, "only one of the ends occurs: choose other weights"
    got = answers_of(Policy(model), formatter, examples, max_new_tokens=12, batch_size=4)
    assert got == [text for text, _ in by_hand]


@pytest.mark.parametrize(
    "settings",
    [
        # What chat models ship in generation_config.json.
        {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.5},
        {"eos_token_id": [3, 4], "max_length": 7},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(20))},
        {"num_beams": 3},
        {"return_dict_in_generate": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_the_models_own_settings_do_not_matter(settings):
    """Greedy is the argmax, whatever generation_config.json says; and it says the same afterwards."""
    tokenizer = make_tokenizer()
    formatter = Formatter(tokenizer)
    model = lively(make_llama())
    examples = make_examples(formatter, QUESTIONS)
    ends = [tokenizer.eos_token_id]
    expected = [answer_by_hand(model, tokenizer, e.input_ids[: e.start], ends, 20)[0] for e in examples]
    model.generation_config.update(**settings)
    before = model.generation_config.to_dict()
    assert answers_of(Policy(model), formatter, examples, max_new_tokens=20) == expected
    assert model.generation_config.to_dict() == before


def test_is_without_dropout_and_leaves_train_mode():
    tokenizer = make_tokenizer()
    formatter = Formatter(tokenizer)
    policy = Policy(lively(make_gpt2(dropout=0.5)))
    examples = make_examples(formatter, QUESTIONS)
    answers = [answers_of(policy, formatter, examples, max_new_tokens=6) for _ in range(2)]
    assert answers[0] == answers[1]
    assert policy.training


def test_a_long_prompt_cuts_no_other_answer():
    """Of 64 positions the longest prompt leaves a few; the shorter ones have all that was asked for."""
    model = lively(make_llama())
    model.config.max_position_embeddings = 64
    formatter = Formatter(make_tokenizer())
    examples = make_examples(formatter, ["Why?", "x" * 45, "Who?", "y" * 50])
    prompts = [list(example.input_ids[: prompt_length(example)]) for example in examples]
    alone = [continue_prompts(Policy(model), formatter, [prompt], 30, 1)[0] for prompt in prompts]
    assert {len(tokens) for tokens in alone[::2]} == {30}
    assert max(map(len, alone[1::2])) < 30
    assert continue_prompts(Policy(model), formatter, prompts, 30, 16) == alone
