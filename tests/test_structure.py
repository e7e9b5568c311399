"""The shape of the house: who may import whom, and that every part can be imported."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import unlearun
from unlearun.methods import METHODS

ROOT = Path(unlearun.__file__).parent
ORDER = [
    "records",
    "ops",
    "data",
    "models",
    "metrics",
    "methods",
    "report",
    "harness",
    "runs",
    "explain",
    "attacks",
    "api",
    "cli",
    "sweep",
]
MODULES = sorted(".".join(f.relative_to(ROOT.parent).with_suffix("").parts) for f in ROOT.rglob("*.py"))


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("unlearun"):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("unlearun")}
    return {parts[1] for parts in (name.split(".") for name in names) if len(parts) > 1}


@pytest.mark.parametrize("place", ORDER)
def test_a_folder_imports_only_from_those_before_it(place):
    files = [ROOT / f"{place}.py"] if (ROOT / f"{place}.py").exists() else list((ROOT / place).glob("*.py"))
    assert files
    later = set(ORDER[ORDER.index(place) + 1 :])
    for file in files:
        assert not imported(file) & later, f"{file.name} looks to the right"


@pytest.mark.parametrize("module", MODULES)
def test_everything_can_be_imported(module):
    importlib.import_module(module.removesuffix(".__init__"))


@pytest.mark.parametrize("name", unlearun.__all__)
def test_every_public_name_is_there(name):
    assert getattr(unlearun, name) is not None
    assert name in dir(unlearun)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_public_name_without_being_listed_again(method):
    assert getattr(unlearun, method.__name__) is method
    assert method.__name__ in dir(unlearun)


def test_a_submodule_is_no_method():
    """Asking for one must not load torch."""
    code = "import sys; from unlearun import shipped; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_wrong_name_is_explained():
    with pytest.raises(AttributeError, match="Did you mean 'SimNPO'"):
        _ = unlearun.SimNPPO
