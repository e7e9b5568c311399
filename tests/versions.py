"""Run the tests with the oldest and the latest versions of what unlearun needs: python tests/versions.py.

Oldest is what pyproject.toml gives as least; latest is what the package index has. Each environment is made anew, or
used again with --folder. Arguments behind -- go to pytest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
WATCHED = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "jsonargparse", "peft")
if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def bounds() -> dict[str, tuple[str, str]]:
    """Name, as pip takes it with its extras, and least version of each dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["lora"]]
    found = (re.fullmatch(r"(([\w-]+)(?:\[\w+\])?)>=([\w.]+)", one) for one in wanted)
    return {one[2]: (one[1], one[3]) for one in found if one is not None}


def requirements(kind: str, torch: str | None) -> list[str]:
    """What pip is told for one of the two environments."""
    chosen = {name: f"{full}=={least}" if kind == "oldest" else full for name, (full, least) in bounds().items()}
    if torch is not None:
        chosen["torch"] = f"torch=={torch}"
    return sorted(chosen.values())


def build(kind: str, folder: Path, torch: str | None) -> Path:
    """Make an environment, torch first, and return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "-q"]
    chosen = requirements(kind, torch)
    first = [one for one in chosen if one.partition("==")[0] == "torch"]  # before anything asks for a larger build
    subprocess.run([*install, *first], check=True)
    subprocess.run([*install, *([] if kind == "oldest" else ["-U"]), *chosen, "-e", f"{ROOT}[test,lora]"], check=True)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["oldest", "latest"], metavar="oldest|latest")
    parser.add_argument(
        "--folder", type=Path, help="where the environments are kept; without it, in no place that lasts"
    )
    parser.add_argument("--torch", help="this version of it in both, where another would be too large")
    own, further = sys.argv[1:], []
    if "--" in own:
        own, further = own[: own.index("--")], own[own.index("--") + 1 :]
    chosen = parser.parse_args(own)
    if wrong := set(chosen.kinds) - {"oldest", "latest"}:
        parser.error(f"{', '.join(wrong)}: name oldest, latest or both")
    status = 0
    with tempfile.TemporaryDirectory() as scratch:
        for kind in chosen.kinds:
            python = build(kind, (chosen.folder or Path(scratch)) / kind, chosen.torch)
            code = (
                f"from importlib.metadata import version as v; print(*(f'{{n}} {{v(n)}}' for n in {WATCHED}), sep=', ')"
            )
            sys.stdout.write(f"{kind}: {subprocess.check_output([python, '-c', code], text=True)}")
            sys.stdout.flush()
            status |= subprocess.run([python, "-m", "pytest", "-q", *further], cwd=ROOT, check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
