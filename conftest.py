"""Python blocks of README and docs, run as tests: each page is one program, in a folder of its own.

A page prepares what its blocks leave out in ``<!--- invisible-code-block: python``.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

collect_ignore_glob = ["docs/*.py", "docs/gallery/*"]  # of the site, with needs of their own


def _enter(namespace: dict[str, Any]) -> None:
    """Begin a page."""
    namespace["_page"] = Path.cwd(), tempfile.TemporaryDirectory()
    os.chdir(namespace["_page"][1].name)
    torch.manual_seed(0)


def _leave(namespace: dict[str, Any]) -> None:
    """End a page."""
    before, folder = namespace["_page"]
    os.chdir(before)
    folder.cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    setup=_enter,
    teardown=_leave,
).pytest()
