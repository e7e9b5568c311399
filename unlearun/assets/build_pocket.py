"""Build the pocket data, tokenizer and models: `python -m unlearun.assets.build_pocket [DIR]`."""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from unlearun.assets.gold_records import write_gold_records
from unlearun.assets.measure import encode, measure
from unlearun.assets.people import SEED, Fact, make_facts
from unlearun.data import Example, collate

EOS, PAD = "<|endoftext|>", "<|pad|>"
VOCAB_SIZE = 2000
EPOCHS, BATCH, LR, DECAY, WARMUP = 7, 32, 3e-3, 0.1, 0.1
TRAINED_ON = {"target": ("forget", "retain", "facts"), "gold": ("retain", "facts")}
Pair = tuple[str, str]


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with an end and a padding token and nothing else."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=EOS, pad_token=PAD, model_max_length=512)


def new_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """Return an untrained model of about two million weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batches(rows: Sequence[Example], size: int, rng: Random) -> list[list[Example]]:
    """Group rows of like length into batches in random order."""
    order = sorted(rows, key=lambda row: (len(row.input_ids), rng.random()))
    grouped = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(grouped)
    return grouped


def _optimizer(model: LlamaForCausalLM) -> torch.optim.AdamW:
    """Return AdamW that decays matrices only."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": DECAY},
        {"params": [w for w in weights if w.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98))


def train(model: LlamaForCausalLM, rows: Sequence[Example], pad: int, seed: int) -> None:
    """Train in place: warm-up, then a cosine down to zero."""
    rng = Random(seed)
    plan = [batch for _ in range(EPOCHS) for batch in batches(rows, BATCH, rng)]
    warm = int(WARMUP * len(plan))
    optimizer = _optimizer(model)
    model.train()
    for step, batch in enumerate(plan):
        angle = math.pi * (step - warm) / (len(plan) - warm)
        rate = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(angle))
        for group in optimizer.param_groups:
            group["lr"] = LR * rate
        made = collate(batch, pad)
        loss = model(made.input_ids, attention_mask=made.attention_mask, labels=made.labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def trained_pairs(facts: Iterable[Fact], seed: int) -> list[Pair]:
    """Return every (question, answer) that the facts are trained in."""
    rng = Random(seed)
    return [pair for fact in facts for pair in fact.trained(rng)]


def write_data(out: Path) -> None:
    """Write the rows and, in the folder of each model, the tokenizer."""
    facts = make_facts()
    out.mkdir(parents=True, exist_ok=True)
    for part, drawn in facts.items():
        text = json.dumps([fact.row() for fact in drawn], indent=1)
        (out / f"{part}.json").write_text(text + "\n", encoding="utf-8")
    # The tokenizer also reads the holdout, or its names would split into more pieces.
    tokenizer = train_tokenizer(
        f"Question: {question}\nAnswer: {answer}"
        for drawn in facts.values()
        for question, answer in trained_pairs(drawn, SEED)
    )
    for name in TRAINED_ON:
        tokenizer.save_pretrained(out / name)


def build_model(out: Path, name: str) -> str:
    """Train, save and measure one model.

    Args:
        out: Folder that `write_data` has filled.
        name: `target` or `gold`.

    Returns:
        Its lines of the table of figures.
    """
    torch.set_num_threads(1)
    start = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(out / name)
    facts = make_facts()
    examples = encode(tokenizer, [pair for part in TRAINED_ON[name] for pair in trained_pairs(facts[part], SEED)])
    model = new_model(tokenizer, SEED)
    train(model, examples, tokenizer.pad_token_id, SEED)
    model.bfloat16().save_pretrained(out / name)
    seconds = time.perf_counter() - start
    head = f"{name}: {model.num_parameters():,} weights, {seconds:.0f} s\n"
    # The figures are those of the rounded weights, computed in fp32.
    rounded = AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float32)
    for part, drawn in facts.items():
        figures = measure(rounded, tokenizer, [fact.row() for fact in drawn])
        head += f"  {part:8}" + "".join(f"  {k} {v:.3f}" for k, v in figures.items()) + "\n"
    return head


def build(out: Path) -> None:
    """Write the data, the tokenizer and both models, one process and one thread each, and the records of gold."""
    write_data(out)
    with ProcessPoolExecutor(len(TRAINED_ON), mp_context=get_context("spawn")) as pool:
        for table in pool.map(build_model, repeat(out), TRAINED_ON):
            sys.stdout.write(table)
    write_gold_records(out)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the build from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", nargs="?", type=Path, default=Path(__file__).parent / "pocket")
    build(parser.parse_args(argv).dir)


if __name__ == "__main__":
    main()
