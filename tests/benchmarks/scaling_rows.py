"""What scaling.py prepares: a file of questions and answers, from reading to batches."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

from unlearun.data import UnlearningDataModule
from unlearun.models import load_tokenizer

README = Path(__file__).parents[2] / "README.md"
QUESTION_WORDS, ANSWER_WORDS = 12, 34  # some 15 and 40 tokens
EPOCHS = 3


def write_rows(file: Path, count: int) -> Path:
    """Write questions and answers of the length of TOFU's, in the words of README."""
    draw = random.Random(0)
    words = sorted(set(re.findall("[A-Za-z]{2,}", README.read_text(encoding="utf-8"))))

    def sentence(length: int) -> str:
        return " ".join(draw.choices(words, k=length)).capitalize()

    with file.open("w", encoding="utf-8") as out:
        for _ in range(count):
            row = {"question": f"{sentence(QUESTION_WORDS)}?", "answer": f"{sentence(ANSWER_WORDS)}."}
            out.write(f"{json.dumps(row)}\n")
    return file


def prepare_rows(file: str, cache: str, name: str) -> dict[str, float]:
    """Read, check and tokenise a file, then draw its batches; return what that took."""
    tokenizer = load_tokenizer(name)
    tokenizer("warm up")
    before = resident("VmRSS")
    reset_peak()
    begun, worked = time.perf_counter(), time.process_time()
    data = UnlearningDataModule(file, cache=cache)
    data.connect(tokenizer, ("forget",))
    seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    peak = max(0.0, resident("VmHWM") - before)  # the kernel counts in portions, so little may look like less
    tokens = sum(len(row.input_ids) for row in data.examples("forget"))
    loader = data.train_dataloader()
    begun = time.perf_counter()
    next(iter(loader))
    first = time.perf_counter() - begun
    sizes = []
    for epoch in range(EPOCHS):
        for each in loader.flattened:
            each.sampler.set_epoch(epoch)
        for _ in loader:
            pass
        sizes.append(resident("VmRSS"))
    return {
        "seconds": seconds,
        "cores": worked / seconds,
        "peak_gb": peak,
        "tokens": tokens,
        "batch_seconds": first,
        "epochs_gb": sizes[-1] - sizes[0],
    }


def reset_peak() -> None:
    """Let the kernel count the peak of resident memory from here on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def resident(what: str) -> float:
    """Return GB of resident memory: VmRSS now, VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024 / 1e9
