"""How much each attack leaves of the digits network of ``make demo``, at each radius.

``python benchmarks/attacks.py RUN`` attacks all 450 test images of a run of ``onelip train
digits``: with what was the default until November 2026, with what is it now, with the ensemble, and
with each attack alone. ``--reference`` adds PGD of 1,000 steps with 20 restarts on both losses:
an hour. Each entry is written when it is known, with the others left as they are.
"""

import json
import sys
import time
from pathlib import Path

import torch

from onelip._export import export
from onelip.attacks import ATTACKS, DEFAULT_ATTACKS, PGD, Attack, attack_radii
from onelip.data import load
from onelip.experiments.classification import ClassificationFolder
from onelip.experiments.provenance import environment

FILE = Path(__file__).parent / "results" / "attacks_digits.json"
STEPS = 50


def main(path: str, reference: bool) -> None:
    torch.set_num_threads(1)
    run = ClassificationFolder.open(path)
    test = load("digits", "test", None)
    images, model = test.inputs.float().div(255), export(run.load_model())
    radii = sorted(run.recipe.eps)

    def store(name: str, methods: list[Attack]) -> None:
        start = time.perf_counter()
        broken = attack_radii(model, images, test.labels, radii, methods, batch_size=450)
        shares = [round(100 * float((~lost).double().mean()), 2) for lost in broken]
        left = dict(zip(map(repr, radii), shares, strict=True))
        entry = {
            "attacks": [repr(method) for method in methods],
            "left": left,
            "seconds": round(time.perf_counter() - start, 1),
            **environment(),
        }
        content = json.loads(FILE.read_text()) if FILE.exists() else {}
        FILE.write_text(json.dumps({**content, name: entry}, indent=1) + "\n")
        print(f"{name:24} {left} {entry['seconds']} s", flush=True)

    if reference:
        strong: list[Attack] = [PGD(1000, 20, "margin"), PGD(1000, 20, "cross-entropy")]
        store("reference", strong)
        return
    store("default before", [*ATTACKS["pgd"](STEPS, 1), *ATTACKS["fgm"](STEPS, 1)])
    store("default", [m for name in DEFAULT_ATTACKS for m in ATTACKS[name](STEPS, 1)])
    for name in ("fmn", "apgd-t", "apgd-ce", "auto"):
        store(name, list(ATTACKS[name](STEPS, 1)))


if __name__ == "__main__":
    main(sys.argv[1], "--reference" in sys.argv)
