"""Tiny models and a character tokenizer, made here: no test downloads anything."""

from __future__ import annotations

import copy
import json
import os
import string

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unlearun.data import Batch

torch.set_num_threads(1)  # tiny tensors: more threads only get in their own way

CHARACTERS = string.ascii_letters + string.digits + " .,:?!'\n-[]{}"


def make_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """One token a character; padding and the end of a sequence share one token, as in many published models."""
    vocabulary = {character: i for i, character in enumerate(CHARACTERS)}
    vocabulary["<eos>"] = len(vocabulary)
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = chat_template
    return tokenizer


PICTURES = "unlearun.report.page.pictures_of_run"


def no_pictures(run):
    """Stand in for what draws the pictures of a report: it takes a second a fit or more, and tests/report has it."""
    return []


@pytest.fixture(autouse=True)
def without_pictures(request, monkeypatch):
    if "report" not in request.path.parts:
        monkeypatch.setattr(PICTURES, no_pictures)


def make_llama(layers: int = 2, width: int = 32, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(CHARACTERS) + 1,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=256,
        eos_token_id=len(CHARACTERS),
        pad_token_id=len(CHARACTERS),
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def make_gpt2(layers: int = 2, width: int = 32, dropout: float = 0.0, seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(CHARACTERS) + 1,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        n_positions=256,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        eos_token_id=len(CHARACTERS),
        bos_token_id=len(CHARACTERS),
    )
    return GPT2LMHeadModel(config).eval()


def random_batch(rows: int = 3, tokens: int = 9, seed: int = 0, vocabulary: int = 60) -> Batch:
    """Rows of different lengths, prompts of different lengths, padded on the right with a valid token id."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (rows, tokens), generator=generator)
    attention = torch.ones_like(ids)
    labels = ids.clone()
    for row in range(rows):
        labels[row, : 2 + row] = -100
        length = tokens - 2 * row if tokens - 2 * row > 3 + row else tokens
        attention[row, length:] = 0
        labels[row, length:] = -100
    return Batch(ids, attention, labels, example_id=torch.arange(rows))


def answer_tokens(model, batch: Batch) -> list[list[tuple[torch.Tensor, int]]]:
    """For each labelled token of each row the scores ``(V,)`` that predict it, and itself; no use of the package."""
    found = []
    for row in range(len(batch)):
        with torch.no_grad():
            logits = model(batch.input_ids[row : row + 1], attention_mask=batch.attention_mask[row : row + 1]).logits[0]
        places = [p for p in range(1, batch.labels.shape[1]) if batch.labels[row, p] != -100]
        found.append([(logits[p - 1], int(batch.labels[row, p])) for p in places])
    return found


def elsewhere_changed(batch: Batch) -> list[Batch]:
    """The same answers, with other ids in the padding, and with tokens after the last label: no loss may see either."""
    changed = copy.deepcopy(batch)
    changed.input_ids[batch.attention_mask == 0] = 3
    longer = batch.map(lambda tensor: tensor if tensor.ndim == 1 else torch.nn.functional.pad(tensor, (0, 2)))
    longer.labels[:, -2:] = -100
    longer.attention_mask[0, -2:] = 1
    return [changed, longer]


def sequence_logprob(model, batch: Batch, row: int) -> float:
    """S of one row, token by token from the architecture's own logits, with no use of the package."""
    logprobs = model(batch.input_ids[row : row + 1]).logits[0].log_softmax(-1)
    wanted = [p for p in range(1, batch.labels.shape[1]) if batch.labels[row, p] != -100]
    return sum(logprobs[p - 1, batch.labels[row, p]].item() for p in wanted)


FORGET = [
    {"question": "Where does Anna live?", "answer": "In Oslo, by the sea."},
    {"question": "What does Ben eat?", "answer": "Ben eats green plums."},
    {"question": "Who is Carl?", "answer": "A baker of dark bread."},
    {"question": "What is Dora's dog called?", "answer": "Her dog is Rex."},
]
RETAIN = [
    {"question": "Where does Emil work?", "answer": "At the old mill."},
    {"question": "What does Fay sing?", "answer": "Fay sings low songs."},
    {"question": "Who is Gus?", "answer": "A pilot of small boats."},
    {"question": "What is Hana's cat called?", "answer": "Her cat is Mimi."},
    {"question": "What does Ivo grow?", "answer": "Ivo grows red corn."},
    {"question": "Where is Jan's hut?", "answer": "It stands on a hill."},
]


@pytest.fixture(autouse=True)
def leave_no_process_group(monkeypatch):
    """A run with strategy ddp sets variables and opens a process group; the next test must see neither."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def files(tmp_path):
    """A forget and a retain file: a JSON list, and one object a line."""
    forget, retain = tmp_path / "forget.json", tmp_path / "retain.jsonl"
    forget.write_text(json.dumps(FORGET, indent=1))
    retain.write_text("\n".join(json.dumps(row) for row in RETAIN))
    return forget, retain
