"""Run metrics in two processes. Here and not in a test, for a spawned process imports it by name."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from unlearun.data import Batch
from unlearun.metrics import EvaluationSuite, ExampleMetric
from unlearun.ops import TokenStats

Rows = list[tuple[TokenStats, Batch]]
WORLD = 2


def in_two_processes(metrics: list[ExampleMetric], shares: list[list[Rows]]) -> list[list[dict[str, Any]]]:
    """Feed each process its share and compute.

    Args:
        metrics: Each is used with each of the shares, fresh.
        shares: For each case, the batches of process 0 and of process 1.

    Returns:
        For each process and case, the value and the records a metric by its title, and the suite's evaluation.
    """
    with tempfile.TemporaryDirectory() as folder:
        # This process is the one of the two: importing torch once more is what takes the time.
        other = multiprocessing.spawn(_work, (folder, metrics, shares), nprocs=1, join=False)
        results = [_take_part(0, folder, metrics, shares)]
        while not other.join():
            pass
        return [*results, torch.load(Path(folder) / "results.pt", weights_only=False)]


def _work(_index: int, folder: str, metrics: list[ExampleMetric], shares: list[list[Rows]]) -> None:
    torch.set_num_threads(1)
    torch.save(_take_part(1, folder, metrics, shares), Path(folder) / "results.pt")


def _take_part(rank: int, folder: str, metrics: list[ExampleMetric], shares: list[list[Rows]]) -> list[dict[str, Any]]:
    meet = {"init_method": f"file://{folder}/meet", "timeout": timedelta(seconds=120)}
    distributed.init_process_group("gloo", rank=rank, world_size=WORLD, **meet)
    try:
        return [_measure(metrics, share[rank]) for share in shares]
    finally:
        distributed.destroy_process_group()


def _measure(metrics: list[ExampleMetric], rows: Rows) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in metrics:
        metric.reset()
        for stats, batch in rows:
            metric.update(stats, batch)
        value = metric.compute().item()
        with metric.sync_context():
            found[metric.title] = value, metric.per_example()
    suite = EvaluationSuite(["set"])
    for stats, batch in rows:
        suite.update("set", stats, batch)
    found["suite"] = suite.compute(3)
    return found
