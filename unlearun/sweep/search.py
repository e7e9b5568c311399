"""Combinations drawn one after the other, by optuna, whose study stands in the folder of the sweep."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from unlearun.errors import UnlearunError
from unlearun.sweep.check import write
from unlearun.sweep.folder import Sweep
from unlearun.sweep.plan import DIVERGED, KIND, WAITING, Run
from unlearun.sweep.ranking import score
from unlearun.sweep.values import Range, read_space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

STUDY = "study.log"
SAMPLERS = ("tpe", "random")
REPEATS = 50


def need_optuna() -> None:
    """Say how to install optuna where it is missing.

    Raises:
        UnlearunError: It is.
    """
    if find_spec("optuna") is None:
        raise UnlearunError("--search needs the package optuna; pip install 'unlearun[sweep]' (a --grid needs nothing)")


class Search:
    """Draws runs until there are as many as the plan wants.

    Args:
        sweep: Whose runs it draws.

    Attributes:
        used_up: Whether there are no new values left to draw.
    """

    def __init__(self, sweep: Sweep) -> None:
        need_optuna()
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep = sweep
        self.spaces = {key: read_space(key, text) for key, text in sweep.plan.search.items()}
        self.used_up = False
        file = sweep.folder / STUDY
        # We hold the folder, so a lock that is there was left by a process that was killed.
        file.with_name(f"{STUDY}.lock").unlink(missing_ok=True)
        self.study: Study = optuna.create_study(
            study_name=KIND,
            storage=JournalStorage(JournalFileBackend(str(file))),
            direction="maximize",
            load_if_exists=True,
        )
        self._drop_strays()

    def next(self) -> Run | None:
        """Return a run that was broken off, else a new one; None where there are enough, or no new values left."""
        plan = self.sweep.plan
        waiting = next((run for run in plan.runs if run.status == WAITING), None)
        if waiting is not None or self.used_up or len(plan.runs) >= plan.trials:
            return waiting
        for _ in range(REPEATS):
            run = self._draw()
            known = next((other for other in plan.runs if other.values == run.values), None)
            if known is None:
                plan.runs.append(run)
                return run
            self._tell(run.trial, known)  # the same again would find the same
        self.used_up = True
        return None

    def ended(self, run: Run) -> None:
        """Tell the study what a run has reached, in a trial of its own where it was told another thing before."""
        from optuna.trial import create_trial

        value = _worth(run)
        told = None if run.trial is None else self.study.trials[run.trial]
        if told is None or not told.state.is_finished() or value is None:
            self._tell(run.trial, run)
            return
        alike = [one.number for one in self.study.trials if one.params == told.params and one.value == value]
        if not alike:  # it was tried again; else a kill came before the plan was written
            self.study.add_trial(create_trial(params=told.params, distributions=told.distributions, value=value))
        run.trial = alike[0] if alike else len(self.study.trials) - 1

    def _draw(self) -> Run:
        # Seeded by how far it is: a search that goes on draws what it would have drawn without a stop.
        self.study.sampler = self._sampler(len(self.study.trials))
        trial = self.study.ask()
        values = {key: self._suggest(trial, key) for key in self.spaces}
        return Run(len(self.sweep.plan.runs) + 1, values, trial=trial.number)

    def _suggest(self, trial: Trial, key: str) -> str:
        space = self.spaces[key]
        if not isinstance(space, Range):
            return str(trial.suggest_categorical(key, space))
        if space.whole:
            return write(space, trial.suggest_int(key, int(space.low), int(space.high), log=space.log))
        return write(space, trial.suggest_float(key, space.low, space.high, log=space.log))

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import RandomSampler, TPESampler

        if self.sweep.plan.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, constant_liar=self.sweep.plan.jobs > 1)

    def _tell(self, trial: int | None, run: Run) -> None:
        """Tell the study what a run is worth; one that failed says nothing of its values."""
        from optuna.trial import TrialState

        value = _worth(run)
        if trial is not None:
            state = TrialState.FAIL if value is None else TrialState.COMPLETE
            self.study.tell(trial, value, state, skip_if_finished=True)

    def _drop_strays(self) -> None:
        """Give up what was drawn just before a kill, and never came into the plan; tell what was not told."""
        from optuna.trial import TrialState

        known = {run.trial: run for run in self.sweep.plan.runs}
        for trial in self.study.get_trials(states=[TrialState.RUNNING]):
            run = known.get(trial.number)
            if run is None:
                self.study.tell(trial.number, state=TrialState.FAIL)
            elif run.ended:
                self._tell(trial.number, run)


def _worth(run: Run) -> float | None:
    """Return what a search should make more of; a run that diverged is a bad one, and of one that failed it is None."""
    value = 0.0 if run.status == DIVERGED else score(run)
    return run.forget_quality if value is None else value
