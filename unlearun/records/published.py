"""Records of three kinds: an evaluation of ours, OpenUnlearning's TOFU_EVAL.json, TOFU's eval_log_aggregated.json."""

from __future__ import annotations

from pathlib import Path

from unlearun.errors import UnlearunError
from unlearun.records import open_unlearning, tofu
from unlearun.records.evaluation import Evaluation, is_ours, read_json, role_of
from unlearun.records.run_evaluations import last_evaluation
from unlearun.records.stated import to_examples
from unlearun.shipped import find_asset, is_shipped


def read_records(path: str | Path) -> Evaluation:
    """Read the records of an evaluation; which of the three kinds they are is found out.

    Args:
        path: A file, a run folder, whose last evaluation is meant, or what ships with the package
            (``pocket/gold_records.json``).

    Returns:
        The evaluation; of a published file only examples, and what it states without examples.

    Raises:
        UnlearunError: It cannot be read, is of no kind that is known, or a value in it is not what it should be.
    """
    try:
        asset = find_asset(str(path)) if is_shipped(str(path)) else None
        file = asset or Path(path)
        folder = file.is_dir()
    except (OSError, ValueError) as error:  # too long a name, or a character that no name holds
        reason = getattr(error, "strerror", None) or error
        raise UnlearunError(f"{str(path)!r:.80} cannot be read: {reason}; expected a file or a run folder") from error
    if folder:
        file = last_evaluation(file)
    stored, where = read_json(file), str(file)
    if is_ours(stored):
        return Evaluation.from_json(stored, where)
    given: dict[str, float] = {}
    if tofu.recognises(stored):
        kind, examples = "tofu", to_examples(tofu.stated(stored, where))
    elif open_unlearning.recognises(stored):
        kind, examples = "open-unlearning", to_examples(open_unlearning.stated(stored, where))
        given = open_unlearning.given(stored, where)
    else:
        raise UnlearunError(
            f"{where} holds no records of a known kind; expected an eval/step=N.json of a run folder, OpenUnlearning's "
            "TOFU_EVAL.json (forget_Q_A_Prob, forget_truth_ratio, ...) or TOFU's eval_log_aggregated.json "
            "(eval_log_forget.json, ...)"
        )
    sets = {name: {"role": role_of(name), "rows": len(rows)} for name, rows in examples.items()}
    return Evaluation(0, examples=examples, fingerprint={"kind": kind, "sets": sets}, given=given)
