"""Records of a model that never saw the forget set, and whether they fit an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearun.errors import all_at_once
from unlearun.records.evaluation import Evaluation
from unlearun.records.published import read_records
from unlearun.records.summary import REFERENCE_ATTACK, find, min_k_area

COMPARED_SETS = ("forget", "holdout")
# Texts decoded by another tokenizer may differ in a space here and there; other questions differ in nearly all.
LEAST_SHARED = 0.5


def read_reference(path: str | Path) -> Evaluation:
    """Read the records of a retain model, of any of the three kinds.

    Args:
        path: A file, or a run folder.

    Raises:
        UnlearunError: They cannot be read, or hold nothing that could be compared with.
    """
    reference = read_records(path)
    problems = _useless(reference)
    if problems:
        raise all_at_once(problems, f"{path} cannot be a retain reference")
    return reference


def offers(reference: Evaluation) -> frozenset[str]:
    """Say what a retain reference can serve.

    Args:
        reference: Records of a model that never saw the forget set.

    Returns:
        Those of `NEED_REFERENCE` that can be computed with it, for an evaluation that it fits.
    """
    forget, holdout = (find(reference.examples, role) or {} for role in COMPARED_SETS)
    able = {
        "ks_forget_quality": any("truth_ratio" in record for record in forget.values()),
        "privleak": min_k_area(reference) is not None,
        REFERENCE_ATTACK: all(_has_all(examples, "logprob", "tokens") for examples in (forget, holdout)),
    }
    return frozenset(name for name, is_able in able.items() if is_able)


def check_fit(evaluation: Evaluation, reference: Evaluation, where: str) -> None:
    """Check that a retain reference was measured on the rows of an evaluation, all of them, in the same way.

    Args:
        evaluation: Its fingerprint is enough; examples are compared where it has them.
        reference: The same of a model that never saw the forget set.
        where: The reference's file, for the message.

    Raises:
        UnlearunError: All that differs.
    """
    problems = _useless(reference)
    ours, theirs = evaluation.fingerprint, reference.fingerprint
    differences: dict[str, None] = {}  # each once, where both sets are asked alike
    for role in COMPARED_SETS:
        cut = _cut_short(reference, role, "the reference") + _cut_short(evaluation, role, "this evaluation")
        problems += cut or _other_rows(evaluation, reference, role)
        templates = [
            _set(one, role)[1].get("template") or one.fingerprint.get("template") for one in (evaluation, reference)
        ]
        if templates[0] and templates[1]:
            differences |= dict.fromkeys(_other_template(templates[0], templates[1]))
    problems += differences
    if ours.get("tokenizer") and theirs.get("tokenizer") and ours["tokenizer"] != theirs["tokenizer"]:
        problems.append("the reference was made with another tokenizer")
    if problems:
        where = f"{where} cannot be the retain reference (evaluate the retain model on the same rows in the same way)"
        raise all_at_once(problems, where)


def _useless(reference: Evaluation) -> list[str]:
    if offers(reference):
        return []
    return [
        "the reference has no truth ratios or log-probabilities of a forget set (these with those of a holdout set), "
        "and no min-k scores or their area"
    ]


def _has_all(examples: dict[str, dict[str, Any]], *columns: str) -> bool:
    return bool(examples) and all(column in record for record in examples.values() for column in columns)


def _cut_short(evaluation: Evaluation, role: str, whose: str) -> list[str]:
    """Say that a set was not evaluated to its end; of one without any row there is nothing that could be wrong."""
    examples, facts = _set(evaluation, role)
    rows = facts.get("rows", len(examples))
    if rows and facts.get("partial"):
        return [f"{whose} was cut short after {rows} {role} rows (evaluate all: leave out limit_val_batches)"]
    if 0 < len(examples) < rows:
        return [f"{whose} has only {len(examples)} examples of the {rows} {role} rows that its fingerprint names"]
    return []


def _other_rows(evaluation: Evaluation, reference: Evaluation, role: str) -> list[str]:
    """Say how the rows of a role differ, as far as both sides tell."""
    (ours, facts), (theirs, their_facts) = _set(evaluation, role), _set(reference, role)
    rows, their_rows = facts.get("rows", len(ours)), their_facts.get("rows", len(theirs))
    if not rows or not their_rows:
        return []
    if rows != their_rows:
        return [f"the reference has {their_rows} {role} rows, this evaluation {rows}"]
    digest, their_digest = facts.get("digest"), their_facts.get("digest")
    if digest and their_digest:
        other = f"the {role} rows of the reference are others, or in other order (digest {their_digest}, here {digest})"
        return [] if digest == their_digest else [other]
    problems = []
    if ours and theirs and not set(ours) & set(theirs):
        problems.append(f"the reference has none of this evaluation's {role} example ids")
    answers, their_answers = _answers(ours), _answers(theirs)
    shared = len(answers & their_answers)
    if answers and their_answers and shared < LEAST_SHARED * min(len(answers), len(their_answers)):
        problems.append(
            f"the reference has other {role} answers: {shared} of its {len(their_answers)} stand in this evaluation"
        )
    return problems


def _set(evaluation: Evaluation, role: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the records of the set that plays a role, and what the fingerprint says of it."""
    sets = evaluation.fingerprint.get("sets") or {}
    name = find({name: name for name in evaluation.examples}, role) or find({name: name for name in sets}, role) or role
    return evaluation.examples.get(name, {}), sets.get(name, {})


def _answers(examples: dict[str, dict[str, Any]]) -> set[str]:
    texts = (record.get("answer") for record in examples.values())
    return {" ".join(text.lower().split()) for text in texts if isinstance(text, str)}


def _other_template(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key)]
    return [f"the template's {key} is {theirs.get(key)!r} in the reference, {ours.get(key)!r} here" for key in keys]
