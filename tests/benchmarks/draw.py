"""Draw what training.py has measured: seconds a step and memory of every method beside the plain loop's.

    python tests/benchmarks/draw.py RESULTS PICTURE

RESULTS holds what training.py printed for several methods; its last line counts. PICTURE ends in .png or .svg.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

TITLES = {
    "grad_ascent": "GradAscent",
    "grad_diff": "GradDiff",
    "grad_diff_kl": "GradDiff, KL",
    "npo": "NPO",
    "dpo": "DPO",
    "simnpo": "SimNPO",
    "rmu": "RMU",
}
OURS, PLAIN, INK = "#1f6f8b", "#c9ced1", "#30363a"


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    chosen = parser.parse_args()
    results = json.loads(chosen.results.read_text(encoding="utf-8").strip().splitlines()[-1])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    draw(left, results, "seconds", "seconds a step", lambda each: f"{each['speedup']:.1f} times faster")
    draw(right, results, "peak_gb", "peak memory, GB", lambda each: f"{100 * each['memory_share']:.0f}% of it")
    left.set_yticks(range(len(results)), [TITLES[each["method"]] for each in results])
    left.invert_yaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    figure.savefig(chosen.picture, dpi=160)


def draw(axes: Axes, results: list[dict[str, Any]], what: str, label: str, say: Any) -> None:
    """Draw one number of all methods."""
    places = range(len(results))
    height, plain = 0.38, [each[f"plain_{what}"] for each in results]
    axes.barh([y - height / 2 for y in places], plain, height, color=PLAIN, label="plain Hugging Face loop")
    axes.barh([y + height / 2 for y in places], [each[what] for each in results], height, color=OURS, label="unlearun")
    for y, each in zip(places, results, strict=True):
        axes.annotate(
            say(each),
            (each[what], y + height / 2),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
        )
    axes.set_xlabel(label, color=INK)
    axes.set_xlim(0, 1.12 * max(plain))
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
