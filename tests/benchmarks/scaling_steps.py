"""What scaling.py trains: models with random weights, alone or as one of several processes."""

from __future__ import annotations

import logging
import os
import random
import statistics
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from loops import Clock
from scaling_rows import resident
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unlearun.api import find_method
from unlearun.data import UnlearningDataModule


@dataclass(frozen=True)
class Shape:
    """A Llama.

    Attributes:
        vocabulary: Words that its tokenizer knows.
        width: Of its hidden states.
        inner: Width of its MLPs.
        layers: How many.
        heads: Of attention.
        groups: Key-value heads.
    """

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    groups: int

    def make(self) -> LlamaForCausalLM:
        """Return it with random weights."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
        )
        return LlamaForCausalLM(config)


# Of 2, 7, 32 and 135 million parameters; the last is SmolLM2-135M's.
SHAPES = (
    Shape(8_192, 128, 384, 4, 4, 4),
    Shape(8_192, 256, 768, 6, 4, 4),
    Shape(49_152, 320, 960, 12, 5, 5),
    Shape(49_152, 576, 1536, 30, 9, 3),
)


@dataclass(frozen=True)
class Work:
    """What is trained.

    Attributes:
        shape: The model's.
        answer: Tokens of an answer, its end included.
        rows: Of each set a step, in all processes together.
        steps: How many, the first, which warms up, included.
        processes: How many share it.
    """

    shape: Shape
    answer: int = 41
    rows: int = 8
    steps: int = 3
    processes: int = 1


def train(work: Work, rank: int | None = None, port: int = 0) -> dict[str, float]:
    """Train alone, or as one of several processes; return seconds a step, memory and the size of the model."""
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // work.processes))
    alike: dict[str, Any] = {"accelerator": "cpu", "devices": work.processes}
    if rank is not None:
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        alike["strategy"] = "ddp"
    tokenizer = word_tokenizer(work.shape.vocabulary)
    before = resident("VmRSS")
    model = work.shape.make()
    method: Any = find_method("simnpo")(model, tokenizer=tokenizer)
    count = work.rows * work.steps
    data = UnlearningDataModule(
        some_rows(work, count, 0),
        some_rows(work, count, 1),
        batch_size=work.rows // work.processes,
        max_length=4096,
        overlap="allow",
        cache=False,
    )
    clock = Clock()
    flags = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=work.steps,
            callbacks=[clock],
            num_sanity_val_steps=0,
            limit_val_batches=0,
            default_root_dir=folder,
            **alike,
            **dict.fromkeys(flags, False),  # type: ignore[arg-type]
        )
        clock.start()
        trainer.fit(method, datamodule=data)
        found = clock.stop()
    return {
        "parameters": model.num_parameters(),
        "seconds": statistics.median(found.seconds[1:]),
        "cores": statistics.median(found.cores[1:]),
        "peak_gb": found.peak_gb - before,
    }


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of numbered words, so that an answer has as many tokens as it is meant to."""
    vocabulary = {"<eos>": 0, **{f"w{i}": i for i in range(1, size)}}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="w1"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>")


def some_rows(work: Work, count: int, seed: int) -> list[dict[str, str]]:
    """Return rows with questions of 15 tokens."""
    draw = random.Random(seed)

    def words(length: int) -> str:
        return " ".join(f"w{draw.randrange(1, work.shape.vocabulary)}" for _ in range(length))

    return [{"question": words(13), "answer": words(work.answer - 1)} for _ in range(count)]
