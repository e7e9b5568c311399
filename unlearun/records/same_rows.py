"""Whether two evaluations are of the same rows, asked in the same way, by their fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unlearun.records.evaluation import Evaluation, role_of


def same_rows(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> bool:
    """Say whether two evaluations are of the same rows of a set, all of them, asked in the same way.

    Args:
        ours: The fingerprint of one.
        theirs: That of the other.
        name: The set.
    """
    wanted, found = ((one.get("sets") or {}).get(name) for one in (ours, theirs))
    if wanted is None or found is None or found.get("partial"):
        return False
    return all(wanted.get(key) == found.get(key) for key in ("rows", "digest", "template", "generation"))


def measured_otherwise(first: Evaluation, second: Evaluation, roles: Sequence[str]) -> bool:
    """Say whether two evaluations tell that sets which play a role in both are of other rows, or were asked otherwise.

    Args:
        first: The one.
        second: The other.
        roles: The roles that count.
    """
    ours, theirs = (one.fingerprint.get("sets") or {} for one in (first, second))
    shared = [name for name in ours if name in theirs and role_of(name) in roles]
    # A published log tells how many rows it had, and neither which nor how they were asked.
    told = [name for name in shared if "digest" in ours[name] and "digest" in theirs[name]]
    return any(
        not same_rows(first.fingerprint, second.fingerprint, name)
        if name in told
        else ours[name].get("rows") != theirs[name].get("rows")
        for name in shared
    )
