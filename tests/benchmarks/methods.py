"""What each shipped method does to the pocket model by its config: the table in README.

    python tests/benchmarks/methods.py [METHOD...] [--output DIR] [--readme] [--arguments ...]

METHOD is the name of a config, such as rmu; without any, all of them. Each runs as users run it, `unlearun fit --config
METHOD`, in a process of its own, one after another: seconds and peak memory are those of the whole command, both
evaluations included. `--readme` writes the table into README.md. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from unlearun.records import Evaluation
from unlearun.shipped import configs_root

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- methods -->\n", "<!-- end of methods -->\n"
# The share of the start's probability that forget must come below, and retain must keep.
FORGET_BAR, RETAIN_BAR = 0.25, 0.9
NO_BAR = ("TaskVector", "GradAscent", "FineTune")
COLUMNS = {
    "forget": "forget probability, share of the start",
    "retain": "retain probability, share of the start",
    "forget_quality": "forget_quality",
    "ks_forget_quality": "ks_forget_quality",
    "model_utility": "model_utility",
    "mia": "mia",
    "seconds": "seconds",
    "peak_gb": "peak GB",
}


def run(config: str, folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Run the command of a config, and read what it has left.

    Args:
        config: Its name.
        folder: Where outputs go.
        arguments: Further ones of `unlearun fit`.
    """
    command = [sys.executable, "-m", "unlearun", "fit", "--config", config, "--output_dir", str(folder)]
    begun = time.perf_counter()
    child = subprocess.Popen(
        [*command, "--trainer.enable_progress_bar", "false", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = child.stderr.read() if child.stderr is not None else ""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{config} ended with status {child.returncode}: {said[-2000:]}")
    seconds = time.perf_counter() - begun
    newest = max(folder.rglob("config.yaml"), key=lambda file: file.stat().st_mtime_ns)  # --output may hold others
    run_folder = newest.parent
    evaluations = [Evaluation.read(file) for file in (run_folder / "eval").glob("step=*.json")]
    first, last = (end(evaluations, key=lambda one: one.step).summary for end in (min, max))
    shares = {name: last[f"{name}/probability"] / first[f"{name}/probability"] for name in ("forget", "retain")}
    # The unit of maximum resident memory is the kilobyte on Linux, the byte on macOS.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    found = {name: last[name] for name in COLUMNS if name in last}
    return {"method": method_of(config), "config": config, **shares, **found, "seconds": seconds, "peak_gb": peak}


def method_of(config: str) -> str:
    """Return the class that a config names."""
    text = (configs_root() / f"{config}.yaml").read_text(encoding="utf-8")
    return str(yaml.safe_load(text)["model"]["class_path"])


def table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table."""
    lines = [f"| method | {' | '.join(COLUMNS.values())} |", f"| --- |{' --- |' * len(COLUMNS)}"]
    for row in rows:
        cells = [
            f"{row[name]:.0f}"
            if name == "seconds"
            else f"{row[name]:.2g}"
            if name.startswith("ks")
            else f"{row[name]:.3f}"
            for name in COLUMNS
        ]
        lines.append(f"| `{row['method']}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", metavar="METHOD", nargs="*")
    parser.add_argument("--output", help="keep the run folders there")
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    parser.add_argument("--arguments", nargs=argparse.REMAINDER, default=[], help="further arguments of unlearun fit")
    chosen = parser.parse_args()
    if chosen.methods and chosen.readme:
        parser.error("--readme writes the table of all methods; leave METHOD out")
    configs = chosen.methods or sorted(file.stem for file in configs_root().glob("*.yaml"))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for config in configs:
            rows.append(run(config, Path(chosen.output or scratch) / config, chosen.arguments))
            sys.stdout.write(f"{table(rows[-1:]).splitlines()[-1]}\n")
            sys.stdout.flush()
    missed = [
        row["method"]
        for row in rows
        if row["method"] not in NO_BAR and (row["forget"] > FORGET_BAR or row["retain"] < RETAIN_BAR)
    ]
    sys.stdout.write(f"\n{table(rows)}\n")
    sys.stdout.write(f"{len(missed)} beyond the bars{': ' if missed else ''}{', '.join(missed)}\n")
    if chosen.readme:
        text = README.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        README.write_text(f"{before}{BEGIN}{table(rows)}{END}{after}", encoding="utf-8")
    sys.stdout.write(f"{json.dumps(rows)}\n")


if __name__ == "__main__":
    main()
