"""Run the notebooks and store what they print and draw.

    python tests/run_notebooks.py [FILE...]

What the Trainer and transformers tell of the machine is left out, so that a notebook changes only where it says
something else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 900


def execute(file: Path, folder: Path) -> NotebookNode:
    """Run a notebook from top to bottom in a folder, and return it with its outputs."""
    notebook = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _joined([output for output in cell.outputs if _says_something(output)])
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join what was printed in one go, which a slow machine hands over in pieces."""
    joined: list[NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _says_something(output: NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stdout" and "[real_accelerator" not in output.text and bool(output.text.strip())
    return output.output_type == "error" or "image/png" in output.data  # not a progress bar


def main() -> None:
    """Run what the command line names, or all."""
    for file in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(file, Path(folder)), file)
        sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
