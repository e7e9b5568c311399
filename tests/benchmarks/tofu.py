"""TOFU in small, for real: a target, a yardstick that never saw the forget set, and every method between them.

    python tests/benchmarks/tofu.py [METHOD[:POINT]...] [--data FOLDER] [--output DIR] [--model MODEL] [--readme]

METHOD is the name of a config, such as rmu; without any, all of them, and three points each of those in POINTS. The
target is trained on authors 0-17 and 198-199 (20 rows each), the yardstick on 0-17 alone; 198-199 are then to be
forgotten, and 100-101 are what nobody saw. Each run is `unlearun fit` in a process of its own, one after another; what
is in DIR already is not done again, and a run that was broken off goes on. Figures gather in docs/tofu.json: a method
that stands there is left out unless it is named. `--readme` writes the table of what is there into README.md and draws
docs/tofu.png; without METHOD nothing is run then.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tofu_plot import draw

from unlearun.files import write_whole
from unlearun.records import Evaluation
from unlearun.shipped import configs_root

ROOT = Path(__file__).parents[2]
README, FIGURES, PICTURE = ROOT / "README.md", ROOT / "docs" / "tofu.json", ROOT / "docs" / "tofu.png"
BEGIN, END = "<!-- tofu -->\n", "<!-- end of tofu -->\n"
ROWS = 20  # of an author
AUTHORS = {"full": [*range(18), 198, 199], "retain99": [*range(18)], "forget01": [198, 199], "holdout01": [100, 101]}
TARGET, GOLD = "target", "retain model"
# By what of a target one tells whether it is the one that a row began from: each machine makes a slightly other one.
START = "forget/extraction_strength"
# So much that the target knows its rows by heart, and is still a model of language.
TRAINING = ["--optimizer.lr", "1e-4", "--trainer.max_epochs", "6", "--trainer.check_val_every_n_epoch", "6"]
# What the method begins with is what the target ended with.
MEASURED_ONCE = ["--trainer.num_sanity_val_steps", "0"]
COLUMNS = {
    "forget_quality": "forget_quality",
    "ks_forget_quality": "ks_forget_quality",
    "model_utility": "model_utility",
    "forget/extraction_strength": "ES",
    "forget/exact_memorization": "EM",
    "mia": "MIA",
}
# Settings that are tried beside the defaults, by method.
POINTS: dict[str, dict[str, list[str]]] = {
    "rmu": {
        "near": ["--optimizer.lr", "1e-3", "--model.steering_coeff", "100", "--model.alpha", "30"],
        "sam": [
            *("--optimizer.lr", "1e-3", "--model.steering_coeff", "100", "--model.alpha", "30"),
            *("--model.sharpness_radius", "0.01"),
        ],
        "far": ["--optimizer.lr", "1e-3", "--model.steering_coeff", "300", "--model.alpha", "30"],
    },
    "npo": {
        "slow": ["--optimizer.lr", "1e-5"],
        "fast": ["--optimizer.lr", "5e-5"],
        "sam": ["--model.sharpness_radius", "0.01"],
    },
    "simnpo": {"slow": ["--optimizer.lr", "1e-5"], "fast": ["--optimizer.lr", "5e-5"]},
    "grad_diff": {"slow": ["--optimizer.lr", "1e-5"], "fast": ["--optimizer.lr", "5e-5"]},
    "undial": {"fast": ["--optimizer.lr", "1e-4"], "faster": ["--optimizer.lr", "3e-4"]},
}


def cut_rows(published: Path, folder: Path) -> None:
    """Write the rows of some authors into files of TOFU's names.

    Args:
        published: The folder of TOFU's files, one JSON object a line.
        folder: Where they go.
    """
    read = {file.stem: file.read_text(encoding="utf-8").splitlines() for file in published.glob("*.json")}
    if missing := {"full", "forget01_perturbed", "retain_perturbed", "real_authors_perturbed"} - read.keys():
        sys.exit(f"{published} has no {sorted(missing)[0]}.json; name the folder of TOFU's files with --data")
    files = {
        name: [line for author in authors for line in read["full"][author * ROWS : (author + 1) * ROWS]]
        for name, authors in AUTHORS.items()
    }
    kept = {json.loads(line)["question"] for line in files["retain99"]}
    files |= {name: lines for name, lines in read.items() if name.endswith("_perturbed")}
    files["retain_perturbed"] = [line for line in read["retain_perturbed"] if json.loads(line)["question"] in kept]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        write_whole(folder / f"{name}.json", "\n".join(lines) + "\n")


def fit(folder: Path, arguments: Sequence[str], further: Sequence[str] = ()) -> dict[str, Any]:
    """Run `unlearun fit`, or what is left of it, and return what it found and took.

    Args:
        folder: Of this run alone.
        arguments: Of the command.
        further: What the user adds, to a run that goes on as well.
    """
    done = folder / "result.json"
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))
    begun = next((file.parent for file in folder.rglob("config.yaml")), None)
    command = ["fit", *(["--resume", str(begun)] if begun else [*arguments, "--output_dir", str(folder)]), *further]
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    # Each begins as a copy of a process that has imported all: on two cores that takes a dozen seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unlearun.cli"])
    told, tell = context.Pipe(duplex=False)
    child = context.Process(target=_command, args=(command, os.getcwd(), str(folder / "output.txt"), tell))
    child.start()
    tell.close()
    child.join()
    if child.exitcode is None or child.exitcode < 0 or child.exitcode >= 128:
        sys.exit(f"{folder.name} was broken off; the same command goes on with it")
    if child.exitcode:
        said = (folder / "output.txt").read_text(encoding="utf-8").strip().splitlines()
        errors = [line for line in said if line.startswith("unlearun: error: ")]
        found: dict[str, Any] = {"failed": [*said, *errors][-1].removeprefix("unlearun: error: ")}
    else:
        found = {"run": str(next(file.parent for file in folder.rglob("config.yaml")))}
    found |= {"seconds": time.perf_counter() - start, **_told(told), "whole": begun is None}
    if "run" in found:
        shutil.rmtree(Path(found["run"]) / "checkpoints", ignore_errors=True)  # 1.6 GB, and of no more use
        write_whole(done, json.dumps(found))
    return found


def _told(told: Connection) -> dict[str, Any]:
    """Return what a run has told of itself; one that ended by a fault has told nothing."""
    try:
        return told.recv()
    except EOFError:
        return {}


def _command(arguments: Sequence[str], where: str, file: str, tell: Connection) -> None:
    """Run `unlearun`, let it print into a file, and tell what it took."""
    from unlearun.__main__ import main

    os.chdir(where)
    with Path(file).open("a", encoding="utf-8") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
        status = main(arguments)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The unit of maximum resident memory is the kilobyte on Linux, the byte on macOS.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    tell.send({"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_gb": peak})
    sys.exit(status)


def figures(found: dict[str, Any], step: str = "last") -> dict[str, Any]:
    """Return the values of the first or the last evaluation of a run, each with its interval, and what it took."""
    row = {name: found[name] for name in ("seconds", "cpu_seconds", "peak_gb", "whole", "failed") if name in found}
    if "run" in found:
        evaluations = [Evaluation.read(file) for file in (Path(found["run"]) / "eval").glob("step=*.json")]
        chosen = (min if step == "first" else max)(evaluations, key=lambda one: one.step)
        row |= {
            name: [chosen.summary[name], *chosen.intervals.get(name, ())] for name in COLUMNS if name in chosen.summary
        }
    return row


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table, a line a model; marked are those that began from another target than the one there."""
    others = from_another(rows)
    lines = [
        f"| model | {' | '.join(COLUMNS.values())} | CPU seconds | GB |",
        f"| --- |{' --- |' * (len(COLUMNS) + 2)}",
    ]
    for name, row in rows.items():
        if "failed" in row:
            lines.append(f"| `{name}` | {row['failed']} |{' |' * (len(COLUMNS) + 1)}")
            continue
        cells = [written(row.get(column), column) for column in COLUMNS]
        seconds = f"{row['cpu_seconds']:.0f}" if row.get("whole") else ""  # whatever ran beside it
        mark = " †" if name in others else ""
        lines.append(f"| `{name}`{mark} | {' | '.join(cells)} | {seconds} | {row['peak_gb']:.1f} |")
    return "\n".join(lines) + "\n"


def from_another(rows: dict[str, dict[str, Any]]) -> set[str]:
    """Return the models that did not begin from the target that stands among the rows."""
    start = rows.get(TARGET, {}).get(START)
    return {name for name, row in rows.items() if name not in (TARGET, GOLD) and row.get("from") != start}


def written(values: Sequence[float] | None, column: str) -> str:
    """Write a value with its interval."""
    if not values:
        return ""
    shown = [f"{value:.1e}" if column.startswith("ks") else f"{value:.2f}" for value in values]
    return shown[0] if len(shown) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def main() -> None:
    """Run what the command line names, and what that needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", metavar="METHOD", nargs="*")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/tofu", help="TOFU's files")
    parser.add_argument("--output", type=Path, default=Path("outputs/tofu"), help="where the runs go")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="where the figures of all runs gather")
    parser.add_argument("--model", help="what the target begins as; default: SmolLM2-135M-Instruct")
    parser.add_argument(
        "--readme", action="store_true", help="write the table and the picture; without METHOD nothing is run"
    )
    parser.add_argument("--arguments", nargs=argparse.REMAINDER, default=[], help="further arguments of unlearun fit")
    chosen = parser.parse_args()
    rows = json.loads(chosen.figures.read_text(encoding="utf-8")) if chosen.figures.is_file() else {}
    configs = sorted(file.stem for file in configs_root().glob("*.yaml") if file.stem != "fine_tune")
    points = [
        point for config in configs for point in (config, *(f"{config}:{name}" for name in POINTS.get(config, ())))
    ]
    if unknown := [name for name in chosen.methods if name not in points]:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(points)}")
    left = chosen.methods or [point for point in points if point not in rows and not chosen.readme]
    shared = ["--config", "benchmarks/tofu/smollm2", "--data.root", str(chosen.output / "data")]
    shared += ["--trainer.enable_progress_bar", "false"]

    def run(name: str, config: str, benchmark: str, *more: str) -> dict[str, Any]:
        layers = ["--config", config, "--config", f"benchmarks/tofu/{benchmark}"]
        folder = chosen.output / name.replace(":", "-").replace(" ", "-")
        found = fit(folder, [*layers, *shared, *more], chosen.arguments)
        sys.stdout.write(f"{name}: {found.get('run') or found['failed']}, {found['seconds']:.0f} s\n")
        sys.stdout.flush()
        if name in (TARGET, GOLD) and "failed" in found:
            sys.exit(f"without the {name} there is nothing to compare with")
        return found

    if left:
        cut_rows(chosen.data, chosen.output / "data")
        start = ["--model.model", chosen.model] if chosen.model else []
        gold = run(GOLD, "fine_tune", "retain99", *start, *TRAINING, *MEASURED_ONCE)
        known = ["--data.retain", str(chosen.output / "data/full.json"), "--data.retain_reference", gold["run"]]
        target = run(TARGET, "fine_tune", "retain99", *start, *known, *TRAINING)
        rows |= {TARGET: figures(target), GOLD: figures(gold)}
        known = ["--model.model", f"{target['run']}/model", "--data.retain_reference", gold["run"], *MEASURED_ONCE]
        for point in left:
            config, _, name = point.partition(":")
            found = run(point, config, "forget01", *known, *POINTS.get(config, {}).get(name, []))
            rows[point] = figures(found) | {"from": rows[TARGET][START]}
            write_whole(chosen.figures, json.dumps(rows, indent=1) + "\n")
    rows = {name: rows[name] for name in (TARGET, GOLD, *points) if name in rows}
    sys.stdout.write(f"\n{table(rows)}\n")
    if chosen.readme:
        text = README.read_text(encoding="utf-8")
        before, after = text.partition(BEGIN)[0], text.partition(END)[2]
        write_whole(README, f"{before}{BEGIN}{table(rows)}{END}{after}")
        draw(rows, PICTURE, GOLD, TARGET, from_another(rows))
    sys.stdout.write(f"{json.dumps(rows)}\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on with what was running")
