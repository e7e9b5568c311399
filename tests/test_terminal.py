"""What commands print: nothing that a row may hold ends a command that has done its work."""

from __future__ import annotations

import io
import sys

from unlearun.terminal import say


def test_what_a_terminal_cannot_show_is_a_question_mark(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1", newline=""))
    say("Zürich 北京 \ud83d")
    assert written.getvalue().decode("latin-1") == "Zürich ?? ?\n"
