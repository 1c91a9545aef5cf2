"""What the two checkers say of a bundle."""

import subprocess
from pathlib import Path

from onelip.checker import check

GO_SOURCE = Path(check.__file__).parent / "go"


def call_go(*arguments: str) -> None:
    """Call Go's tool on the sources; it has to succeed."""
    done = subprocess.run(
        ["go", *arguments], cwd=GO_SOURCE, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def verdict(go: Path, folder: Path) -> str:
    """Empty where the program in Go says VALID, else its reason."""
    done = subprocess.run([go, folder], check=False, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert not done.stderr
    if done.returncode == 0:
        assert "VALID" in lines
        assert "INVALID" not in done.stdout
        return ""
    assert done.returncode == 1
    assert lines[-1].startswith("INVALID: ")
    assert "cannot go on" not in lines[-1]  # a mistake of the checker that it caught itself
    return lines[-1]


def python_verdict(folder: Path) -> str:
    """Empty where check.py says VALID, else its reason."""
    try:
        check.check(folder, say=lambda _: None)
    except (check.Invalid, ValueError, TypeError, ArithmeticError, LookupError) as error:
        return str(error) or "INVALID"
    return ""
