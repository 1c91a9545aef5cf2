"""Write the corpus of bundles anew: ``python -m tests.checker.corpus``, in the repository."""

import json
import shutil
from pathlib import Path

from onelip.checker import check
from tests.checker.corpus.rules import cases

FOLDER = Path(check.__file__).parent / "corpus"
TABLE = "corpus.json"
CLASSES = {
    "json": "proof.json, or the header of the tensors, is no JSON in UTF-8, or has a name twice",
    "schema": "a field is missing, added, or has a value of another type or out of its range",
    "kind": "a kind of a map, activation, witness, method or head that the page does not have, or"
    " not at this level",
    "number": "a claim that is not written as the page says, or a number that is not finite, or not"
    " of the format of level float",
    "digest": "a file that is listed is not there, not a plain name, or has another digest",
    "tensors": "the bytes of tensors.safetensors are not what its header says",
    "fit": "what does not fit together: shapes, types and lengths of tensors, parts and places",
    "claim": "a norm, bound, constant or curvature is larger than claimed",
    "radius": "a radius is not below what margins and constants give",
    "work": "checking asks for more work than is allowed",
}


def files() -> dict[str, bytes]:
    """The whole corpus: bytes by path."""
    found, rows = {}, []
    for name, reason, why, content in cases():
        place = f"{'valid' if reason is None else 'invalid'}/{name.removeprefix('valid-')}"
        assert place not in {row["bundle"] for row in rows}, place
        verdict = "VALID" if reason is None else "INVALID"
        reasons = (reason or "").split()
        assert set(reasons) <= set(CLASSES), reasons
        rows.append({"bundle": place, "verdict": verdict, "reasons": reasons, "why": why})
        found |= {f"{place}/{file}": data for file, data in content.items()}
    head = json.dumps({"reasons": CLASSES}, indent=1)[:-2]
    body = ",\n".join("  " + json.dumps(row) for row in rows)
    found[".gitattributes"] = b"* -text\n"  # no line ends of another system
    return found | {TABLE: f'{head},\n "bundles": [\n{body}\n ]\n}}\n'.encode()}


def main() -> None:
    """Write it."""
    made = files()
    shutil.rmtree(FOLDER, ignore_errors=True)
    for path, data in made.items():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / path).write_bytes(data)


if __name__ == "__main__":
    main()
