"""Stands in for fit, as a launcher that does not start what it launches: writes records by formula, in no time.

--model.gamma=G leaves forget_quality G/10, and model_utility 0.8 at the start and 0.8 - G/20 at the end. Other words
for G make it fail, each in its own way; those that stop the sweep do it once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

LAUNCHER = f"{sys.executable} {Path(__file__).resolve()}"
KEPT = {"model_utility": ["retain/probability"], "forget_quality": ["1-probability"]}


def records(step, summary):
    sets = {"forget": {"rows": 4, "digest": "abc"}}
    return {"step": step, "summary": summary, "examples": {}, "fingerprint": {"sets": sets}, "parts": KEPT}


def leave(folder, quality, end, start=0.8):
    (folder / "eval").mkdir(parents=True)
    before = records(0, {"forget_quality": 0.0, "model_utility": start})
    after = records(5, {"forget_quality": quality, "model_utility": end})
    (folder / "eval" / "step=0.json").write_text(json.dumps(before))
    (folder / "eval" / "step=5.json").write_text(json.dumps(after))


def main():
    output = Path(sys.argv[sys.argv.index("--output_dir") + 1])
    gamma = next(word.partition("=")[2] for word in reversed(sys.argv) if word.startswith("--model.gamma"))
    number = len(list(output.glob("rmu/*"))) + 1
    folder = output / "rmu" / str(number)
    folder.mkdir(parents=True)
    if gamma == "crash":
        raise ValueError("the matrix is not square")
    if gamma == "memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if gamma == "nothing":
        return None
    if gamma == "nan":
        return leave(folder, None, 0.5)
    if gamma in ("interrupt", "terminate", "kill") and number == 1:
        name = {"interrupt": "SIGINT", "terminate": "SIGTERM", "kill": "SIGKILL"}[gamma]
        os.kill(os.getppid(), getattr(signal, name))
        time.sleep(float(os.environ.get("FAKE_SLEEP", "60")))
        return None
    value = 9.0 if gamma in ("interrupt", "terminate", "kill") else float(gamma)
    return leave(folder, value / 10, 0.8 - value / 20)


if __name__ == "__main__":
    main()
