"""Proofs of what VALID rests on: they compile, assume what they say, and are about check.py."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from onelip.checker import check

CHECKER = Path(check.__file__).parent
SOURCE = CHECKER / "coq"
ROOT = CHECKER.parents[2]
KERNEL = (SOURCE / "Kernel.v").read_text()
THEOREMS = re.findall(
    r"^Theorem (\w+)", "".join(path.read_text() for path in SOURCE.glob("*.v")), re.MULTILINE
)

# hypotheses that hold for numbers, so that no theorem is about nothing
EXAMPLES = """
(* the matrix (2 + 1), 2 on the grid, with t = 4 and no factor: 3 is shown, the true norm *)
Example claim : bounded 1 1 (madd (fun _ _ => 1 * 2) (fun _ _ => 1)) 3.
Proof.
  assert (Z : forall a, frobenius 1 1 (fun _ _ => a) = Rabs a).
  { intros a. unfold frobenius, dot. simpl. replace (0 + (0 + a * a)) with (Rsqr a).
    apply sqrt_Rsqr_abs. unfold Rsqr. ring. }
  apply (claimed_norm 1 1 0 _ _ (fun _ _ => 0) (fun _ _ => 0) 4 0 1 3 1).
  - intros i j Hi Hj. replace i with O by lia. replace j with O by lia.
    unfold ident, gram. simpl. lra.
  - rewrite Z, Rabs_R0. lra.
  - lra.
  - rewrite Z, Rabs_R1. lra.
  - lra.
  - lra.
Qed.

(* outputs 3 and 1 of the identity, computed to within 1/10: no rival within 1 *)
Definition at3 : vec := fun i => match i with O => 3 | _ => 1 end.
Example safe : forall x, norm 2 (sub x at3) <= 1 -> x 1%nat < x O.
Proof.
  intros x Hx.
  apply (sample 2 2 (fun x => x) 1 at3 at3 (1 / 10) 1 O); auto; try lra.
  - apply identity_lipschitz.
  - unfold norm, dot, sub. simpl. replace (_ + _) with 0 by ring. rewrite sqrt_0. lra.
  - assert (sqrt 2 < 3 / 2).
    { rewrite <- (sqrt_square (3 / 2)) by lra. apply sqrt_lt_1; lra. }
    intros [|[|j]] Hj N; try lia. simpl. lra.
Qed.
"""

LISTED, PRINTED = "Definition theorems :=\n  (", "Print Assumptions theorems."
ASSUMED = "more is assumed than the axioms of the real numbers"
LOOP = """Unset Guard Checking.
Fixpoint loop (n : nat) : 0 = 1 := loop n.
Set Guard Checking.
Definition wrong := loop O.
"""


@pytest.fixture
def coqc() -> None:
    if shutil.which("coqc") is None:
        pytest.skip("no coqc here: the proofs are not compiled")


def compiled(folder: Path, changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Compile a copy of the proofs in which strings of Kernel.v are others."""
    shutil.copytree(SOURCE, folder)
    text = KERNEL
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "Kernel.v").write_text(text)
    command = ["sh", str(folder / "compile.sh")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.usefixtures("coqc")
def test_they_compile_and_say_one_line() -> None:
    made = subprocess.run(
        ["make", "-s", "coq"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"\d+ theorems are proved, .*\n", made.stdout)


def test_no_coqc_passes_with_a_word(tmp_path) -> None:
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")
    made = subprocess.run(
        [shutil.which("sh") or "sh", str(SOURCE / "compile.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stdout) == (0, "no coqc here, no proof is checked\n")


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
def test_hypotheses_can_hold(tmp_path) -> None:
    made = compiled(tmp_path / "proofs", {PRINTED: EXAMPLES + PRINTED})
    assert made.returncode == 0, made.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({LISTED: f"Axiom wrong : 0 = 1.\n{LISTED}wrong, "}, ASSUMED),
        ({LISTED: f"Theorem wrong : 0 = 1.\nAdmitted.\n{LISTED}wrong, "}, ASSUMED),
        ({LISTED: f"{LOOP}{LISTED}wrong, "}, ASSUMED),
        ({PRINTED: ""}, "no list of axioms"),
        (
            {"pair n f y j (K j) /\\ r * K j < v y - v j - sqrt 2 * e": "r * K j < v y - v j"},
            "Error",
        ),
    ],
)
def test_other_theorems_are_refused(changes, message, tmp_path) -> None:
    made = compiled(tmp_path / "proofs", changes)
    assert made.returncode != 0
    assert message in made.stderr


def test_each_theorem_is_listed() -> None:
    listed = re.search(r"Definition theorems :=\s*\((.*?)\)\.", KERNEL, re.DOTALL)
    assert listed is not None
    assert set(THEOREMS) == set(re.findall(r"\w+", listed[1]))


def test_the_page_quotes_the_checker() -> None:
    page = (SOURCE / "README.md").read_text()
    rows = re.findall(r"^\|(.*)\|.*\|(.*)\|$", page, re.MULTILINE)
    code = (CHECKER / "check.py").read_text() + (CHECKER / "kinds/multipliers.py").read_text()
    quotes = [quote for _, place in rows for quote in re.findall(r"`(.*?)`", place)]
    assert len(quotes) > 15
    for quote in quotes:
        assert quote in code or (CHECKER / quote).is_file(), quote
    named = {name for theorems, _ in rows for name in re.findall(r"`(.*?)`", theorems)}
    assert len(named) > 10
    assert named <= set(THEOREMS)
