"""Look into the layers: is the answer there, though it is not said?"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearun.attacks.base import Attack, Outcome
from unlearun.attacks.victim import Victim
from unlearun.data import OWN, PARAPHRASE, WRONG, Batch
from unlearun.errors import UnlearunError, check_bounds
from unlearun.methods import UnlearningMethod
from unlearun.models import lens_logprobs, mean_states
from unlearun.packages import needs

LENS, PROBE = "lens", "probe"


class Looking(UnlearningMethod):
    """Reads every layer of the model at the answers of a batch, instead of answering."""

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:  # type: ignore[override]
        """Return, as arrays on the CPU, the lens of each row's own answer, and the states of a true and a wrong one."""
        kind, ids = batch.kind, batch.example_id
        if kind is None or ids is None:
            raise UnlearunError("rows have no ids; give the Trainer an UnlearningDataModule")
        own = batch.select(kind == OWN)
        told = batch.select((kind == PARAPHRASE) | (kind == WRONG))
        found: dict[str, Any] = {LENS: lens_logprobs(self.policy, own).exp().double().cpu().numpy()}
        if len(told) and told.kind is not None and told.example_id is not None:
            found["states"] = mean_states(self.policy, told).cpu().numpy()
            found["true"] = (told.kind == PARAPHRASE).cpu().numpy()
            found["rows"] = told.example_id.cpu().numpy()
        return found


class LookInside(Attack):
    """Reads the answers at every layer, and asks whether a line can be drawn between true and wrong ones.

    The logit lens gives the mean probability of the answers as read at each layer through the final norm and the head.
    The probe is a logistic regression on the mean state of a layer at the tokens of an answer, the paraphrased one
    against the wrong ones, which are worded alike; it is trained on some rows and tried on others. 0.5 is chance; what
    a model that never saw the rows reaches is the yardstick.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; Belinkov 2022 (2102.12452) on probes.

    Args:
        folds: The probe is trained on all but one of so many parts of the rows, and tried on that, in turn.

    Raises:
        UnlearunError: There are fewer than 2 folds.
    """

    behavioural = False

    def __init__(self, folds: int = 5) -> None:
        check_bounds(folds=(folds, 2))
        self.folds = folds

    def run(self, victim: Victim) -> Outcome:
        """See `Attack`."""
        predicted: Any = victim.trainer().predict(victim.load(Looking), datamodule=victim.forget_data(None))
        outcome = Outcome()
        lens = np.concatenate([found[LENS] for found in predicted], axis=1)
        outcome.figures[LENS] = [float(value) for value in lens.mean(-1)]
        told = [found for found in predicted if "states" in found]
        if find_spec("sklearn") is None:
            outcome.skipped[PROBE] = needs("scikit-learn", "probe")
        elif not told:
            outcome.skipped[PROBE] = "needs rows with a paraphrased_answer and perturbed_answer, which are worded alike"
        else:
            states = np.concatenate([found["states"] for found in told], axis=1)
            true, rows = (np.concatenate([found[name] for found in told]) for name in ("true", "rows"))
            if not np.isfinite(states).all():
                outcome.skipped[PROBE] = "the model's states are no finite numbers: it is broken"
            elif len({*rows[true].tolist()} & {*rows[~true].tolist()}) < self.folds:
                outcome.skipped[PROBE] = f"needs at least {self.folds} rows that have both, one a fold"
            else:
                outcome.figures[PROBE] = [probe(layer, true, rows, self.folds, victim.seed) for layer in states]
        return outcome


def probe(states: NDArray[Any], true: NDArray[np.bool_], rows: NDArray[np.int64], folds: int, seed: int) -> float:
    """Return how often a line through the states tells true answers from wrong ones, in rows that it has not seen.

    Args:
        states: ``(A, D)``, of an answer each.
        true: ``(A,)`` which answers are true.
        rows: ``(A,)`` the row that each belongs to; its answers are never parted.
        folds: See `LookInside`.
        seed: What the folds are drawn from.

    Returns:
        The accuracy, 0 to 1, true and wrong answers counting alike.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    split = GroupKFold(folds, shuffle=True, random_state=seed)
    said = cross_val_predict(model, states, true, groups=rows, cv=split)
    return float(np.mean([(said[true == side] == side).mean() for side in (True, False)]))
