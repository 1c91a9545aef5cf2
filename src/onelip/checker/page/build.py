"""Write the checker in Go as one HTML page, with Go at hand: ``python build.py OUT.html``."""

import base64
import functools
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from string import Template

HERE = Path(__file__).parent
SOURCE = HERE.parent / "go"


@functools.cache
def compiled() -> bytes:
    """WebAssembly of the checker; the same bytes wherever the same Go builds the same source."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "checker.wasm"
        alike = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=")
        subprocess.run(
            ["go", "build", *alike, "-o", str(target), "."],
            cwd=SOURCE,
            env=os.environ | {"GOOS": "js", "GOARCH": "wasm", "GOFLAGS": "", "GOWASM": ""},
            check=True,
        )
        return target.read_bytes()


def told(*arguments: str) -> str:
    """What Go says of itself."""
    done = subprocess.run(["go", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def loader() -> str:
    """Go's own script that runs WebAssembly, which has to be of the same version."""
    root = Path(told("env", "GOROOT"))
    places = [root / folder / "wasm" / "wasm_exec.js" for folder in ("lib", "misc")]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        sys.exit(f"no wasm_exec.js in {root}: install the whole of Go")
    return found.read_text()


def worker_of(script_of_go: str) -> str:
    """Script of the worker that runs one check."""
    return script_of_go + "\n" + (HERE / "worker.js").read_text()


def page(wasm: bytes, script_of_go: str, version: str) -> str:
    """The page; its policy names its style and its script by their digests."""
    style, script = (HERE / "page.css").read_text(), (HERE / "page.js").read_text()
    worker = worker_of(script_of_go)
    for text in (script, worker, style):
        if "</s" in text.lower() or "<!--" in text:
            sys.exit("a script or style would end, or begin, inside the page")
    policy = {
        "default-src": "'none'",
        "script-src": f"'{digest(script)}' 'wasm-unsafe-eval'",
        "style-src": f"'{digest(style)}'",
        "worker-src": "blob:",
        "img-src": "data:",
        "connect-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return Template((HERE / "page.html").read_text()).substitute(
        policy="; ".join(f"{name} {value}" for name, value in policy.items()),
        style=style,
        script=script,
        worker=worker,
        wasm=packed(wasm),
        digest=hashlib.sha256(wasm).hexdigest(),
        go=version,
    )


def packed(wasm: bytes) -> str:
    """WebAssembly as the text that a page carries."""
    return base64.b64encode(gzip.compress(wasm, 9, mtime=0)).decode()


def digest(text: str) -> str:
    """Digest of an inline script or style, as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def main(target: Path) -> None:
    """Write the page, and say the digest of what is in it."""
    wasm = compiled()
    target.parent.mkdir(parents=True, exist_ok=True)
    version = told("env", "GOVERSION")
    target.write_text(page(wasm, loader(), version), encoding="utf-8", newline="\n")
    print(f"{target}: the checker of {version}, WebAssembly {hashlib.sha256(wasm).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
