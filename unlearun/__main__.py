"""The command ``unlearun``: what needs no torch is answered here, at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from unlearun.arguments import OneLineParser
from unlearun.errors import UnlearunError, closest
from unlearun.shipped import copy_configs
from unlearun.terminal import say

TRAINER_COMMANDS = {
    "fit": "unlearn: train, evaluate before and after, write a run folder",
    "validate": "evaluate a model, a run folder or a checkpoint",
    "test": "evaluate a model, as validate does",
    "predict": "write the model's answers to what would be evaluated",
}
OTHER_COMMANDS = {
    "sweep": "fit with every combination of some settings, and rank them",
    "methods": "list all methods: what each does, needs and costs",
    "preview": "show rows as the model gets them, labelled tokens marked",
    "score": "compute every aggregate from records, without a model",
    "lm-eval": "run tasks of lm-evaluation-harness, such as mmlu, on models",
    "attack": "try to bring back what runs have made models forget",
    "report": "write report.html of a run, or of several against one another",
    "export": "turn a checkpoint into a Hugging Face folder",
    "configs": "copy the shipped configs into a folder",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What follows ``unlearun``; None for that of the process.

    Returns:
        The exit status: 0, 2 for a mistake of the user, 3 for a run that was stopped because it diverged, 130 after
        Ctrl-C. After SIGTERM the process exits with 143.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _dispatch(given)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # who reads has stopped reading, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UnlearunError as error:
        sys.stderr.write(f"unlearun: error: {error}\n")
        return error.status
    except KeyboardInterrupt:
        sys.stderr.write("\nunlearun: interrupted\n")
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        say(_usage().rstrip("\n"))
        return 0
    command, rest = arguments[0], arguments[1:]
    if command == "--version":
        say(f"unlearun {version('unlearun')}")
        return 0
    if command == "configs":
        return _configs(rest)
    if command == "methods":
        return _methods(rest)
    if command == "export":
        return _export(rest)
    if command == "score":
        from unlearun.records.score import main as score

        return score(rest)
    if command == "lm-eval":
        from unlearun.harness import main as lm_eval

        return lm_eval(rest)
    if command == "attack":
        from unlearun.attacks.command import main as attack

        return attack(rest)
    if command == "report":
        from unlearun.report.command import main as report

        return report(rest)
    if command == "sweep":
        from unlearun.sweep.command import main as sweep

        return sweep(rest)
    if command in TRAINER_COMMANDS or command == "preview":
        from unlearun.cli import run

        run(command, rest)
        return 0
    commands = [*TRAINER_COMMANDS, *OTHER_COMMANDS]
    raise UnlearunError(f"there is no command {command!r}.{closest(command, commands)} Known: {', '.join(commands)}")


def _usage() -> str:
    lines = [f"  {name:<10}{text}" for name, text in {**TRAINER_COMMANDS, **OTHER_COMMANDS}.items()]
    return (
        "usage: unlearun COMMAND [options]\n\n"
        "Make a causal language model forget chosen data, keep the rest, and measure both.\n\n"
        + "\n".join(lines)
        + "\n\nStart with:  unlearun fit --config rmu\n"
        "Options of a command:  unlearun COMMAND --help\n"
        "Options of a method:   unlearun fit --model RMU --help\n"
    )


def _configs(arguments: list[str]) -> int:
    parser = OneLineParser("unlearun configs", description="Copy the shipped configs into a folder.")
    parser.add_argument("folder", metavar="DIR", help="where to; files that stand there are never overwritten")
    for file in copy_configs(parser.parse_args(arguments).folder):
        say(str(file))
    return 0


def _methods(arguments: list[str]) -> int:
    parser = OneLineParser("unlearun methods", description="List all methods.")
    parser.add_argument("name", metavar="METHOD", nargs="*", help="these alone")
    parser.add_argument("--json", action="store_true", help="as a list of objects")
    chosen = parser.parse_args(arguments)
    from unlearun.api import find_method
    from unlearun.methods import METHODS
    from unlearun.methods.catalogue import describe, listing

    entries = [describe(cls) for cls in (map(find_method, chosen.name) if chosen.name else METHODS)]
    text = json.dumps([entry._asdict() for entry in entries]) if chosen.json else listing(entries)
    say(text)
    return 0


def _export(arguments: list[str]) -> int:
    parser = OneLineParser("unlearun export", description="Turn a checkpoint into a Hugging Face folder.")
    parser.add_argument("checkpoint", metavar="CKPT", help="a file in RUN/checkpoints")
    parser.add_argument("folder", metavar="DIR", help="where to; must not hold files")
    parser.add_argument("--tokenizer", help="a folder or hub id; without it, the tokenizer of the run")
    parser.add_argument("--adapter", action="store_true", help="write the adapters of a LoRA run alone, not merged")
    chosen = parser.parse_args(arguments)
    from unlearun.models import export_checkpoint

    target = export_checkpoint(chosen.checkpoint, chosen.folder, chosen.tokenizer, chosen.adapter)
    say(str(target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
