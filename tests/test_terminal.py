"""What commands print: nothing that a row may hold ends a command that has done its work."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

from unlearun.terminal import say


def test_what_a_terminal_cannot_show_is_a_question_mark(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", newline=""))
    say("Zürich 北京 \ud83d")
    assert written.getvalue().decode("latin-1") == "Zürich ?? ?\n"


def test_whatever_writes_will_do(monkeypatch):
    """A program may copy what is printed into a file of its own."""
    parts: list[str] = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=parts.append, flush=lambda: None))
    say("all")
    assert parts == ["all\n"]
