"""``unlearun lm-eval``: tasks of lm-evaluation-harness, such as MMLU, on a model before and after."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unlearun.arguments import OneLineParser
from unlearun.errors import UnlearunError, check_bounds, closest
from unlearun.files import check_writable, write_whole
from unlearun.records import number, text_table
from unlearun.records.task_results import FILE, QUESTIONS, add_task_results
from unlearun.terminal import say

INSTALL = "lm-eval needs the package lm-eval; pip install 'unlearun[lm-eval]'"
BOOTSTRAPS = 100  # of metrics whose standard error has no formula; with 0 none has one
TELLING = ("limit", "num_fewshot", "dtype", "chat", "batch_size", "random_seed", "tokenizer")
KINDS = ("float32", "bfloat16", "float16")


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: What follows ``unlearun lm-eval``.

    Returns:
        The exit status, 0.

    Raises:
        UnlearunError: The package is missing, there is no such model or task, or a task's data cannot be had.
    """
    chosen = _parser().parse_args(arguments)
    if find_spec("lm_eval") is None or find_spec("accelerate") is None:
        raise UnlearunError(INSTALL)
    _check_places(chosen)
    check_bounds(limit=(chosen.limit, 1), num_fewshot=(chosen.num_fewshot, 0), batch_size=(chosen.batch_size, 1))
    tasks = [name for part in chosen.tasks for name in part.split(",") if name]
    if not tasks:
        raise UnlearunError("--tasks is empty; name one, such as mmlu")
    settings = _settings(chosen)
    told = _told(settings)
    found, kept = {}, {}
    for model in chosen.models:
        found[model] = evaluate(model, tasks, **settings)
        kept[model] = {task: {"metrics": values, "settings": told} for task, values in found[model].items()}
        if _is_run(model):
            add_task_results(Path(model), kept[model])  # at once: the next may fail, after hours
        if chosen.output:
            write_whole(chosen.output, json.dumps(kept, indent=1) + "\n")
    say(results_table(found))
    return 0


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the settings that change a result, and the harness's version."""
    from importlib.metadata import version

    from unlearun.models.loading import lasting_name

    told = {name: settings[name] for name in TELLING} | {"lm-eval": version("lm-eval")}
    return told | {"tokenizer": told["tokenizer"] and lasting_name(told["tokenizer"])}


def _check_places(chosen: Any) -> None:  # noqa: ANN401 - argparse's namespace
    """Check, before anything takes time, all that is named."""
    from unlearun.models.loading import locate

    if chosen.include_path is not None and not chosen.include_path.is_dir():
        raise UnlearunError(
            f"--include_path {chosen.include_path} is no folder; name one that holds YAML files of tasks"
        )
    output = chosen.output
    if output is not None and (output.is_dir() or any(parent.is_file() for parent in output.parents)):
        raise UnlearunError(f"--output {output} cannot be written: it is a folder, or lies in a file; name a file")
    for model in chosen.models:
        locate(model)
    for folder in (*(Path(model) for model in chosen.models if _is_run(model)), *([output.parent] if output else [])):
        check_writable(folder)


def _is_run(model: str) -> bool:
    """Say whether results are kept where a model was named: in a run folder."""
    return (Path(model) / "config.yaml").is_file() and (Path(model) / "model").is_dir()


def evaluate(
    model: str,
    tasks: Sequence[str],
    dtype: str = "float32",
    include: Path | None = None,
    chat: bool = False,
    trusted: bool = False,
    tokenizer: str | None = None,
    **settings: Any,
) -> dict[str, dict[str, float]]:
    """Run tasks on a model, which is loaded as every other command loads it.

    Args:
        model: A run folder, a hub id, a folder, a GGUF file or ``pocket``.
        tasks: Their names.
        dtype: What the weights are kept in.
        include: A folder with further tasks.
        chat: Whether the tokenizer's chat template is used.
        trusted: Whether code that the model brings along may run.
        tokenizer: Whose tokenizer is used; the model's own if None.
        settings: Further arguments of ``lm_eval.simple_evaluate``.

    Returns:
        For each task its metrics, each with its standard error where there is one.

    Raises:
        UnlearunError: There is no such model or task, or a task's data cannot be had.
    """
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from unlearun.hub import hub_or_cache
    from unlearun.models.loading import locate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it tells of every step
    locate(model)  # first, for to read all tasks takes seconds
    manager = _find_tasks(tasks, include)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded, words = _load(model, tokenizer or model, dtype, trusted)
    batch_size = settings.pop("batch_size")
    wrapped = HFLM(pretrained=loaded.to(device), tokenizer=words, batch_size=batch_size, device=device)
    try:
        with hub_or_cache(), _without_git():
            results: Any = simple_evaluate(
                wrapped,
                tasks=list(tasks),
                task_manager=manager,
                apply_chat_template=chat,
                log_samples=False,
                bootstrap_iters=BOOTSTRAPS,
                **settings,
            )
    except Exception as error:  # a task may need the network, or a package of its own
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise UnlearunError(
            f"lm-eval could not run {', '.join(tasks)} on {model} ({type(error).__name__}: {reason}); {_advice(error)}"
        ) from error
    asked = results.get("n-samples") or {}
    return {
        task: _numbers(values) | ({QUESTIONS: float(asked[task]["effective"])} if task in asked else {})
        for task, values in results["results"].items()
    }


def _load(model: str, tokenizer: str, dtype: str, trusted: bool) -> tuple[Any, Any]:
    """Load a model and a tokenizer; what is wrong with them is said with the options of this command."""
    from unlearun.models import load_model, load_tokenizer

    try:
        return load_model(model, dtype, trusted=trusted).eval(), load_tokenizer(tokenizer, trusted)
    except UnlearunError as error:  # which speaks of the options of fit
        said = str(error).replace("--model.trust_remote_code true", "--trust_remote_code")
        raise UnlearunError(said.replace("--model.tokenizer", "--tokenizer")) from error


@contextmanager
def _without_git() -> Iterator[None]:
    """Keep lm-eval from asking git for the commit of the current folder, which complains where there is none."""
    from lm_eval import evaluator

    known = getattr(evaluator, "get_git_commit_hash", None)
    if known is not None:
        evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        if known is not None:
            evaluator.get_git_commit_hash = known


def _advice(error: Exception) -> str:
    """Say what may help against what a task has failed at."""
    if isinstance(error, ImportError):
        return "install what the task needs"
    if "sample" in str(error).lower():
        return "it has fewer questions than --num_fewshot asks for, which are not the one that is asked: lower it"
    return "check its YAML if it is your own; the data of others come from the Hugging Face hub, or out of its cache"


def _find_tasks(tasks: Sequence[str], include: Path | None) -> Any:  # noqa: ANN401 - lm-eval has no types
    """Return a TaskManager that knows these tasks; that of all tasks, which takes seconds, only where it is needed."""
    from lm_eval.tasks import TaskManager

    folder = None if include is None else str(include)
    if folder is not None:
        own = TaskManager(include_path=folder, include_defaults=False)
        if all(own.match_tasks([name]) for name in tasks):
            return own
    manager = TaskManager(include_path=folder)
    if unknown := [name for name in tasks if not manager.match_tasks([name])]:
        raise UnlearunError(f"there is no task {unknown[0]!r}.{closest(unknown[0], manager.all_tasks)}")
    return manager


def results_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Lay out results, a column a model.

    Args:
        found: For each model, task and metric a value, and under ``METRIC_stderr`` its standard error.

    >>> print(results_table({"gpt2": {"arc": {"acc": 0.25, "acc_stderr": 0.01}}}))
                      gpt2
    -------  -------------
    arc acc  0.250 ± 0.010
    <BLANKLINE>
    ± is one standard error over the questions
    """
    rows: dict[tuple[str, str], list[str]] = {}
    for at, results in enumerate(found.values()):
        for task, values in results.items():
            for metric, value in values.items():
                if not metric.endswith("_stderr"):
                    error = values.get(f"{metric}_stderr")
                    said = number(value) if error is None else f"{number(value)} \N{PLUS-MINUS SIGN} {number(error)}"
                    said = f"{value:.0f}" if metric == QUESTIONS else said
                    rows.setdefault((task, metric), [""] * len(found))[at] = said
    table = text_table(["", *found], [[f"{task} {metric}", *cells] for (task, metric), cells in rows.items()])
    errors = any(name.endswith("_stderr") for one in found.values() for values in one.values() for name in values)
    return f"{table}\n\n\N{PLUS-MINUS SIGN} is one standard error over the questions" if errors else table


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Take the numbers of a task, without the names of filters that say nothing.

    >>> _numbers({"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": 0.1, "acc,none": 0.25})
    {'exact_match (strict-match)': 0.5, 'exact_match (strict-match)_stderr': 0.1, 'acc': 0.25}
    """
    numbers: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and "," in key:
            metric, _, filtered = key.partition(",")
            bare = metric.removesuffix("_stderr")
            named = bare if filtered == "none" else f"{bare} ({filtered})"
            numbers[f"{named}_stderr" if metric != bare else named] = float(value)
    return numbers


def _settings(chosen: Any) -> dict[str, Any]:  # noqa: ANN401 - argparse's namespace
    return {
        "dtype": chosen.dtype,
        "include": chosen.include_path,
        "chat": chosen.apply_chat_template,
        "trusted": chosen.trust_remote_code,
        "tokenizer": chosen.tokenizer,
        "batch_size": chosen.batch_size,
        "limit": chosen.limit,
        "num_fewshot": chosen.num_fewshot,
        "random_seed": chosen.seed,
        "fewshot_random_seed": chosen.seed,
    }


def _parser() -> OneLineParser:
    parser = OneLineParser(
        "unlearun lm-eval",
        description="Run tasks of lm-evaluation-harness on models; of several, side by side.",
        epilog=f"The results of a run folder are kept in it as {FILE}, and `unlearun report` shows them. "
        "Needs: pip install 'unlearun[lm-eval]'",
    )
    parser.add_argument("models", metavar="MODEL", nargs="+", help="a run folder, or what --model.model takes")
    parser.add_argument("--tasks", metavar="TASK", nargs="+", required=True, help="such as mmlu, wmdp_bio, arc_easy")
    parser.add_argument("--limit", type=int, help="at most so many questions a task")
    parser.add_argument("--num_fewshot", type=int, help="examples before each question; default: the task's own")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--dtype", choices=KINDS, default="float32", help="what the weights are kept in")
    parser.add_argument("--include_path", metavar="DIR", type=Path, help="a folder with tasks of your own")
    parser.add_argument("--apply_chat_template", action="store_true", help="ask through the tokenizer's chat template")
    parser.add_argument("--tokenizer", metavar="MODEL", help="whose tokenizer is used; default: the model's own")
    parser.add_argument("--trust_remote_code", action="store_true", help="let code that a model brings along run")
    parser.add_argument("--seed", type=int, default=0, help="what examples before questions are drawn from")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where all results go, as JSON")
    return parser
