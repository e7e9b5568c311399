"""Run something in other processes. Here and not in a test, for a spawned process imports it by name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

WORLD = 2


def in_two_processes(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in two processes of one gloo group.

    Args:
        work: Takes the rank and the arguments; a function of a module that can be imported by name.
        arguments: What can be pickled.

    Returns:
        What it returned in process 0 and in process 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        # This process is the one of the two: importing torch once more is what takes the time.
        other = multiprocessing.spawn(_work, (folder, work, arguments), nprocs=1, join=False)
        results = [_take_part(0, folder, work, arguments)]
        while not other.join():
            pass
        return [*results, torch.load(Path(folder) / "result.pt", weights_only=False)]


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own: some strategies leave theirs unfit for another.

    Args:
        work: A function of a module that can be imported by name.
        arguments: What can be pickled.

    Returns:
        What it returned.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _work(_index: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.save(_take_part(1, folder, work, arguments), Path(folder) / "result.pt")


def _take_part(rank: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    meet = {"init_method": f"file://{folder}/meet", "timeout": timedelta(seconds=60)}
    distributed.init_process_group("gloo", rank=rank, world_size=WORLD, **meet)
    try:
        return work(rank, *arguments)
    finally:
        distributed.destroy_process_group()
