"""Load a sequence classifier that judges texts."""

from __future__ import annotations

from typing import Any

from unlearun.errors import UnlearunError, closest
from unlearun.models.loading import SAFELY, reading


def load_classifier(model: str, label: str) -> dict[str, Any]:
    """Load a classifier and its tokenizer.

    Args:
        model: A hub id or a folder.
        label: One of its labels.

    Returns:
        ``model``, in eval mode, ``tokenizer``, and ``label``, the number of the label.

    Raises:
        UnlearunError: It cannot be loaded, or has no such label.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with reading(model, model, "classifier", "sequence classifier"):
        classifier = AutoModelForSequenceClassification.from_pretrained(model, trust_remote_code=False, **SAFELY)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    labels = {str(name): int(number) for name, number in classifier.config.label2id.items()}
    if label not in labels:
        raise UnlearunError(f"{model} has no label {label!r}.{closest(label, labels)} It has {', '.join(labels)}")
    return {"model": classifier.eval().requires_grad_(False), "tokenizer": tokenizer, "label": labels[label]}
