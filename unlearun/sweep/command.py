"""``unlearun sweep``: from the command line to the ranking."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from unlearun.errors import Terminated, UnlearunError
from unlearun.sweep.check import check
from unlearun.sweep.children import read_launcher
from unlearun.sweep.folder import Sweep, find_or_make, held, open_sweep
from unlearun.sweep.options import parser
from unlearun.sweep.plan import DONE, Plan, digests
from unlearun.sweep.ranking import line, report
from unlearun.sweep.runner import Listed, Runner, Source
from unlearun.sweep.search import SAMPLERS, Search, need_optuna
from unlearun.sweep.values import read_grid, read_search, read_space
from unlearun.terminal import say


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: What follows ``unlearun sweep``.

    Returns:
        The exit status: 0, or 1 when no run can be ranked.

    Raises:
        UnlearunError: An option is wrong, or a run could not be started.
        KeyboardInterrupt: The user has stopped it; another call goes on.
        Terminated: The system has; likewise.
    """
    chosen, options = parser().parse_known_args(arguments or ["--help"])
    folder = options.pop(0) if options and not options[0].startswith("-") else None
    if folder is None:
        sweep = _from_options(options, chosen)
    else:
        _check_alone(folder, options, chosen)
        sweep = open_sweep(Path(folder))
        if chosen.show:
            say(report(sweep))
            return 0
    try:
        with held(sweep) as lock:
            sweep = open_sweep(sweep.folder)  # as it is now that nobody else writes it
            _settle(sweep.plan, chosen, known=folder is not None)
            sweep.again(chosen.retry)
            if folder is not None and _left(sweep.plan):
                _check_unchanged(sweep)
                check(sweep.plan)
            _work(sweep, lock)
    except OSError as error:  # no room left, or no right to write
        raise UnlearunError(f"the sweep cannot go on: {error}; mend that, then: {sweep.command}") from error
    say(f"\n{report(sweep)}")
    return 0 if any(run.status == DONE for run in sweep.plan.runs) else 1


def _from_options(options: list[str], chosen: argparse.Namespace) -> Sweep:
    """Find the sweep of a command line, or make it, when all its runs are in order."""
    if chosen.show:
        raise UnlearunError("--show needs the folder of a sweep, in front: unlearun sweep FOLDER --show")
    plan = Plan(options, read_grid(chosen.grid), read_search(chosen.search))
    if bool(plan.grid) == bool(plan.search):
        raise UnlearunError(
            "--grid runs every combination, --search draws some; to draw from a list, write --search KEY=A,B,C"
            if plan.grid
            else "there is nothing to vary; add --grid KEY=A,B,... or --search KEY=LOW..HIGH (unlearun sweep --help)"
        )
    if plan.search:
        plan.sampler = chosen.sampler or SAMPLERS[0]
        need_optuna()
        if chosen.trials is None:
            raise UnlearunError("--search needs to know how many combinations to draw; add --trials 20")
    _settle(plan, chosen, known=False)
    plan.configs = digests(options, [*plan.grid.get("config", []), *_listed(plan, "config")])
    facts = check(plan)
    if not facts["utility"]:
        say("model_utility is not measured in all runs (no retain or utility set, or not in data.final_metrics)")
    name = facts["methods"][0].lower() if len(facts["methods"]) == 1 else "sweep"
    return find_or_make(Path(facts["output_dir"]) / "sweeps", plan, chosen.name, name)


def _check_alone(folder: str, options: list[str], chosen: argparse.Namespace) -> None:
    """Check that nothing stands beside a folder that would make it another sweep."""
    own = {"--grid": chosen.grid, "--search": chosen.search, "--name": chosen.name, "--sampler": chosen.sampler}
    beside = [*options[:1], *(flag for flag, value in own.items() if value)]
    if beside:
        raise UnlearunError(
            f"{folder} stands where the folder of a sweep does, and that has its plan in it: leave out "
            f"{', '.join(beside)}, or, for a new sweep, {folder} (a config is named with --config)"
        )


def _settle(plan: Plan, chosen: argparse.Namespace, known: bool) -> None:
    """Take over how runs are launched, and how many are drawn.

    Args:
        plan: Where to.
        chosen: What the user said.
        known: Whether what was chosen before stands where the user says nothing.
    """
    for flag, value in (("--jobs", chosen.jobs), ("--trials", chosen.trials)):
        if value is not None and value < 1:
            raise UnlearunError(f"{flag} is {value}; it must be at least 1")
    if (chosen.trials is not None or chosen.sampler) and not plan.search:
        raise UnlearunError("--trials and --sampler belong to --search; a --grid runs every combination")
    if chosen.jobs is not None or not known:
        plan.jobs = chosen.jobs or 1
    if chosen.launcher is not None or not known:
        plan.launcher = chosen.launcher or ""
    read_launcher(plan.launcher)
    plan.trials = chosen.trials or plan.trials


def _check_unchanged(sweep: Sweep) -> None:
    """Check that the configs are what they were when the sweep began."""
    for name, digest in sweep.plan.configs.items():
        if digests([], [name], sweep.plan.place)[name] != digest:
            raise UnlearunError(
                f"the config {name} has changed since {sweep.folder} began, so that its runs would not be comparable; "
                "put it back, or start a new sweep with its --grid"
            )


def _work(sweep: Sweep, lock: int | None) -> None:
    """Run what is left."""
    plan, left = sweep.plan, _left(sweep.plan)
    ended = sum(run.ended for run in plan.runs)
    if not left:
        say(f"all {plan.total} runs of {sweep.folder} have ended; to run them all again, give a new --name")
        return
    if ended:
        say(f"going on in {sweep.folder}: {ended} of {plan.total} runs have ended")
    else:
        say(f"{plan.total} runs in {sweep.folder}; run N prints into N.log there")
    source: Source = Search(sweep) if plan.search else Listed(sweep)
    try:
        Runner(sweep, source, lambda run: say(line(sweep, run)), lock).run()
    except (KeyboardInterrupt, Terminated):
        ended = sum(run.ended for run in plan.runs)
        say(
            f"\nstopped: {ended} of {plan.total} runs have ended. Go on with: {sweep.command}"
            f"\nRanking so far: {sweep.command} --show"
        )
        raise
    if isinstance(source, Search) and source.used_up:
        say(f"no further values to draw: the search ends after {len(plan.runs)} of {plan.trials} runs")
        plan.trials = len(plan.runs)
        sweep.save()


def _left(plan: Plan) -> bool:
    return len(plan.runs) < plan.total or any(not run.ended for run in plan.runs)


def _listed(plan: Plan, key: str) -> list[str]:
    """Return the values that a search may give to a key."""
    space = read_space(key, plan.search[key]) if key in plan.search else []
    return space if isinstance(space, list) else []
