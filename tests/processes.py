"""Run something in other processes. Here and not in a test, for another process imports it by name."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

WORLD = 2


def warm() -> Any:
    """Start a process that has imported all, for that takes longer than most tests: others begin as copies of it.

    Returns:
        The context of multiprocessing whose processes do.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["conftest", "unlearun.cli", "rouge_score.rouge_scorer", "peft"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # it would not find the tests' own files
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    return context


def in_two_processes(work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function in two processes of one gloo group.

    Args:
        work: Takes the rank and the arguments; a function of a module that can be imported by name.
        arguments: What can be pickled.

    Returns:
        What it returned in process 0 and in process 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        warm()
        other = multiprocessing.start_processes(
            _work, (folder, work, arguments), nprocs=1, join=False, start_method="forkserver"
        )
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
    with ProcessPoolExecutor(1, mp_context=warm()) as pool:
        return pool.submit(work, *arguments).result()


def as_torchrun(arguments: list[str]) -> list[tuple[int, str]]:
    """Run the command in two processes, as torchrun starts them.

    Args:
        arguments: What follows ``unlearun``.

    Returns:
        The exit status, and what was printed, of process 0 and of process 1.
    """
    context, port = warm(), _free_port()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(rank) for rank in range(WORLD)]
        processes = [
            context.Process(target=_command, args=(rank, port, arguments, os.getcwd(), str(file)))
            for rank, file in enumerate(files)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [(process.exitcode, file.read_text()) for process, file in zip(processes, files, strict=True)]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _command(rank: int, port: int, arguments: list[str], where: str, file: str) -> None:
    from unlearun.__main__ import main

    os.chdir(where)
    names = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
    os.environ.update({name: str(value) for name, value in names.items()})
    with Path(file).open("w", encoding="utf-8") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        sys.exit(main(arguments))


def _work(_index: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.save(_take_part(1, folder, work, arguments), Path(folder) / "result.pt")


def _take_part(rank: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    meet = {"init_method": f"file://{folder}/meet", "timeout": timedelta(seconds=300)}
    distributed.init_process_group("gloo", rank=rank, world_size=WORLD, **meet)
    try:
        return work(rank, *arguments)
    finally:
        distributed.destroy_process_group()
