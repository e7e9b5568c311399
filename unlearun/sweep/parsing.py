"""Parse the options of runs as fit would, in a process of its own: this needs torch, and the sweep does not.

Reads a JSON list of command lines from stdin, and prints, as its last line, what `facts` found or what is wrong.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TypedDict

from unlearun.cli import UnlearunCLI, resolve_configs
from unlearun.data import UnlearningDataModule
from unlearun.errors import UnlearunError
from unlearun.methods import UnlearningMethod
from unlearun.metrics.catalogue import ALL
from unlearun.models.loading import locate
from unlearun.records.evaluation import role_of


class Facts(TypedDict):
    """What a sweep needs to know of its runs.

    Attributes:
        methods: The methods that run.
        output_dir: The folder of all runs.
        utility: Whether model_utility will be measured in all of them.
    """

    methods: list[str]
    output_dir: str
    utility: bool


class _Parser(UnlearunCLI):
    """UnlearunCLI that parses, and makes nothing."""

    def instantiate_classes(self) -> None:
        """Make nothing."""

    def after_instantiate_classes(self) -> None:
        """Hand on nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


def facts(command_lines: list[list[str]]) -> Facts:
    """Parse the options of each run, make its method and data module, and load nothing.

    Args:
        command_lines: What would follow ``unlearun fit``.

    Returns:
        What they have in common.

    Raises:
        UnlearunError: One of them is wrong, or would leave nothing to rank.
    """
    parser = _Parser(["fit", *resolve_configs(command_lines[0])]).parser
    methods: dict[str, None] = {}
    output_dir, utility = "", True
    for arguments in command_lines:
        config = parser.parse_args(["fit", *resolve_configs(arguments)])
        _check_trainer(config.fit.trainer)
        config.fit.trainer.callbacks = config.fit.trainer.logger = None  # they may reach out when they are made
        made = parser.instantiate(config).fit
        if made.model.model_name is not None:
            locate(made.model.model_name)
        utility = _check_measured(made.model, made.data) and utility
        methods[type(made.model).__name__] = None
        output_dir = output_dir or str(config.fit.output_dir)
    return {"methods": list(methods), "output_dir": output_dir, "utility": utility}


def _check_trainer(trainer: Any) -> None:  # noqa: ANN401 - a jsonargparse Namespace
    for name, empty in (("fast_dev_run", False), ("limit_val_batches", True)):
        value = trainer.get(name)
        if value is not None and bool(value) is not empty:
            raise UnlearunError(f"trainer.{name} is {value}: such a run leaves no evaluation to rank; leave it out")


def _check_measured(method: UnlearningMethod, data: UnlearningDataModule) -> bool:
    """Check that forget_quality will be measured, and say whether model_utility will."""
    for name in method.trained_sets:
        if name not in data.sources:
            raise UnlearunError(f"the method trains on the {name} set, but there is none; add --data.{name} FILE")
    wanted = None if data.final_metrics is None or ALL in data.final_metrics else data.final_metrics
    if wanted is not None and "forget_quality" not in wanted:
        raise UnlearunError(
            f"data.final_metrics is {data.final_metrics}; a sweep ranks by forget_quality (and model_utility): add it"
        )
    roles = {role_of(name) for name in data.evaluated}
    if "forget" not in roles:
        raise UnlearunError(
            f"evaluated are {', '.join(data.evaluated) or 'no sets'}; a sweep ranks by forget_quality, which needs a "
            "forget set: add --data.forget FILE, or forget to data.evaluation"
        )
    return (wanted is None or "model_utility" in wanted) and bool(roles & {"retain", "utility"})


def main() -> int:
    """Answer what stdin asks.

    Returns:
        The exit status, 0.
    """
    found: dict[str, Any]
    try:
        found = {"facts": facts(json.load(sys.stdin))}
    except UnlearunError as error:
        found = {"error": str(error)}
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
