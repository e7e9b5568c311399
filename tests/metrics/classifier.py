"""A sequence classifier of random weights, and what it says of a text."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from metrics.questions import WORDS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

NUMBERS = {word: i for i, word in enumerate(["[PAD]", "[UNK]", ".", *sorted(set(WORDS))])}
LABELS = ("noise", "clean", "word salad")


def save_classifier(folder: Path) -> str:
    """Save one with a tokenizer, one token a word, as transformers loads them."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(NUMBERS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        initializer_range=1.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    inner = Tokenizer(models.WordLevel(NUMBERS, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


def probability_of(folder: str, label: str, text: str) -> float:
    """Return what the classifier gives a text by itself, without a tokenizer and without padding; 0 if it is empty."""
    if not text.strip():
        return 0.0
    with torch.no_grad():
        logits = _load(folder)(input_ids=torch.tensor([[NUMBERS[word] for word in text.split()]])).logits[0]
    return logits.softmax(-1)[LABELS.index(label)].item()


@cache
def _load(folder: str) -> BertForSequenceClassification:
    return BertForSequenceClassification.from_pretrained(folder).eval()
