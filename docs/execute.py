"""Run the tutorials and store their outputs: ``python docs/execute.py [FILE ...]``.

A notebook is run in an empty folder and written, whole, where nothing failed. What changes from one
run to the next for no reason (times of cells) is not stored.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

TUTORIALS = Path(__file__).parent / "tutorials"
NOISE = re.compile(rb"\x1b\[[0-9;]*m|/tmp/[^\s/]*/")  # colours; the folder that is empty at first


def executed(path: Path) -> str:
    """Return a notebook with the outputs that it has now.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=600,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    return NOISE.sub(b"", nbformat.writes(notebook).encode()).decode().rstrip("\n") + "\n"


def main(names: list[str]) -> None:
    """Run the notebooks of these names, or all."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(TUTORIALS.parents[1] / "src")  # of ``onelip`` in a cell, too
    for path in [Path(name) for name in names] or sorted(TUTORIALS.glob("*.ipynb")):
        text = executed(path)
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        print(f"{path}: stored")


if __name__ == "__main__":
    main(sys.argv[1:])
