"""Is it really gone? Every method on the pocket model, or those of TOFU in small, against every attack.

    python tests/benchmarks/attacks.py pocket|tofu [--output DIR] [--readme]

`pocket` runs `unlearun fit` with every shipped method first, and NPO and RMU with `sharpness_radius` (SAM) beside;
`tofu` attacks what `tests/benchmarks/tofu.py --output DIR` has left there. What is in DIR already is not done again.
The figures go to docs/attacks_pocket.json and docs/attacks_tofu.json; `--readme` writes their tables into README.md,
and alone runs nothing. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from unlearun.attacks.configs import shipped_attacks
from unlearun.files import write_whole
from unlearun.shipped import configs_root

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SHARPNESS = ["--model.sharpness_radius", "0.01"]
WITH_SAM = ("npo", "rmu")
TOFU = ("rmu:near", "npo", "npo:sam", "simnpo", "grad_diff")
SCORES = {"memorization": "Mem", "privacy": "Priv", "utility": "Util", "aggregate": "Agg"}


def figures_file(which: str) -> Path:
    """Return where the figures of one set of runs gather."""
    return ROOT / "docs" / f"attacks_{which}.json"


def find_run(folder: Path) -> Path | None:
    """Return the run under a folder that has ended, if there is one."""
    return next((file.parent for file in folder.rglob("config.yaml") if (file.parent / "model").is_dir()), None)


def fit(name: str, folder: Path) -> Path:
    """Unlearn the pocket model, unless that is done, and return the run."""
    done = find_run(folder)
    if done is None:
        config, _, point = name.partition(":")
        command = [sys.executable, "-m", "unlearun", "fit", "--config", config, *(SHARPNESS if point else [])]
        command += ["--output_dir", str(folder), "--trainer.enable_progress_bar", "false"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done = find_run(folder)
    if done is None:
        sys.exit(f"{name} has left no model in {folder}")
    return done


def attack(which: str, runs: Mapping[str, Path], output: Path) -> dict[str, Any]:
    """Attack runs in one command, and return what it says, the models by the names given."""
    own = {file.stem: str(file) for file in (Path(__file__).parent / f"{which}_attacks").glob("*.yaml")}
    shipped = shipped_attacks()
    names = [own.get(name, name) for name in shipped] + [own[name] for name in own.keys() - {*shipped}]
    command = [sys.executable, "-m", "unlearun", "attack", *map(str, runs.values()), "--attacks", *names]
    command += ["--output", str(output), "--json"]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    models = dict(zip(runs, said, strict=True))
    gold = next((one["gold"] for one in models.values() if one["gold"]), None)
    found = {**{name: row(one) for name, one in models.items()}, **({"retain model": row(gold)} if gold else {})}
    return {"models": found, "metrics": means([one["metrics"] for one in said])}


def row(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a model's standing the table and the text read."""
    tried = [
        {
            "attack": one["attack"],
            "variant": one["variant"],
            "share": [one["main"][name] for name in ("share", "low", "high")],
            "beside": one["beside"]["share"],
            "value": one["main"]["value"],
        }
        for one in model["tried"]
        if one["behavioural"]
    ]
    kept = ("score", "robustness", "weakest", "figures", "seconds")
    return {**{name: model[name] for name in kept}, "tried": tried}


def means(judged: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return, for each metric, the mean of R and Q over the models that it takes for unlearned, and their number."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(name for one in judged for name in one):
        for part in ("R", "Q"):
            if values := [one[name][part] for one in judged if part in one.get(name, {})]:
                found.setdefault(name, {}).update({part: fmean(values), f"models of {part}": len(values)})
    return found


def table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a Markdown table, a line a model, those with the highest Agg first and the retain model last."""
    attacks = list(dict.fromkeys(one["attack"] for model in models.values() for one in model["tried"]))
    order = sorted(models, key=lambda name: (name == "retain model", -(models[name]["score"]["aggregate"] or 0)))
    lines = [
        f"| model | {' | '.join(SCORES.values())} | robust | {' | '.join(attacks)} | weakest against |",
        f"| --- |{' --- |' * (len(SCORES) + len(attacks) + 2)}",
    ]
    for name in order:
        model = models[name]
        cells = [number(model["score"][score]) for score in SCORES] + [number(model["robustness"])]
        for attack_name in attacks:
            shares = [one["share"][0] for one in model["tried"] if one["attack"] == attack_name]
            known = [share for share in shares if share is not None]
            cells.append(number(max(known) if known else None))
        weakest = model["weakest"]
        said = "" if weakest is None else f"{weakest['attack']}, {weakest['variant']}"
        lines.append(f"| `{name}` | {' | '.join(cells)} | {said} |")
    return "\n".join(lines) + "\n"


def judgement(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of how far each metric can be trusted."""
    lines = ["| metric | R, as all rows are learnt again | Q, in 4 bits |", "| --- | --- | --- |"]
    for name, one in metrics.items():
        cells = [f"{number(one.get(part))} ({one[f'models of {part}']})" if part in one else "" for part in ("R", "Q")]
        lines.append(f"| `{name}` | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """Write a value of a table."""
    return "" if value is None or math.isnan(value) else f"{value:.2f}"


def write_readme(which: str, text: str) -> None:
    """Put a table between its marks in README."""
    begin, end = f"<!-- attacks {which} -->\n", f"<!-- end of attacks {which} -->\n"
    readme = README.read_text(encoding="utf-8")
    write_whole(README, f"{readme.partition(begin)[0]}{begin}{text}{end}{readme.partition(end)[2]}")


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("pocket", "tofu"), nargs="?")
    parser.add_argument("--output", type=Path, help="where the runs are; default: outputs/attacks, or outputs/tofu")
    parser.add_argument("--methods", nargs="+", help="these runs alone; their table is printed, and not kept")
    parser.add_argument("--readme", action="store_true", help="write the tables of what is there into README.md")
    chosen = parser.parse_args()
    if chosen.methods and (chosen.readme or not chosen.which):
        parser.error("--methods is for pocket or tofu, without --readme, for a table is of all runs")
    if chosen.which == "pocket":
        output = chosen.output or Path("outputs/attacks")
        configs = sorted(file.stem for file in configs_root().glob("*.yaml"))
        names = chosen.methods or [*configs, *(f"{name}:sam" for name in WITH_SAM)]
        runs = {name: fit(name, output / name.replace(":", "-")) for name in names}
    elif chosen.which == "tofu":
        output = chosen.output or Path("outputs/tofu")
        found = {name: find_run(output / name.replace(":", "-")) for name in chosen.methods or TOFU}
        runs = {name: run for name, run in found.items() if run is not None}
        if missing := found.keys() - runs.keys():
            sys.exit(
                f"{output} has no run of {', '.join(sorted(missing))}; make it first, with: python "
                f"tests/benchmarks/tofu.py {' '.join(sorted(missing))} --output {output}"
            )
    if chosen.methods:
        said = attack(chosen.which, runs, output)
        sys.stdout.write(f"{table(said['models'])}\n{json.dumps(said)}\n")
        return
    if chosen.which:
        write_whole(figures_file(chosen.which), json.dumps(attack(chosen.which, runs, output), indent=1) + "\n")
    rows = {}
    for which in ("pocket", "tofu"):
        if figures_file(which).is_file():
            rows[which] = json.loads(figures_file(which).read_text(encoding="utf-8"))
            sys.stdout.write(f"{which}\n\n{table(rows[which]['models'])}\n")
            if chosen.readme:
                write_readme(which, table(rows[which]["models"]))
    if chosen.readme and "pocket" in rows:
        write_readme("metrics", judgement(rows["pocket"]["metrics"]))
    sys.stdout.write(f"{json.dumps(rows)}\n")


if __name__ == "__main__":
    main()
