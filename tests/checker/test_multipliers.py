"""Constants by multipliers, of both checkers: true and false claims, and hostile bundles."""

import json
import math
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onelip import layers, prove
from tests.checker.crafted import crafted, least_constant, plain
from tests.checker.exact_forms import exactly_positive
from tests.checker.programs import python_verdict, verdict

SIZES = ((6, 5, 3), (5, 7, 6, 3), (4, 6, 2, 5, 6, 2), (1, 1, 1), (9, 2, 9, 1))
SLOPES = {"relu": 0.0, "leaky": 0.25, "negative": -0.5, "abs": -1.0, "identity": 1.0, "steep": 1.5}


@pytest.mark.parametrize("kind", SLOPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_claims_are_shown_down_to_the_least_constant(kind, sizes, go: Path, tmp_path) -> None:
    rng = np.random.default_rng(len(kind) + len(sizes))
    tried = 0
    for spread in (0, 3):
        network = crafted(sizes, SLOPES[kind], rng, spread)
        least = least_constant(network)
        if not 1e-6 < least < 2.0**39:
            continue
        tried += 1
        for factor, valid in (
            (1 + 1e-5, True),
            (1.01, True),
            (3.0, True),
            (1 - 1e-7, False),
            (1 - 1e-5, False),
            (1 - 1e-3, False),
            (0.5, False),
            (0.0, False),
        ):
            plain(tmp_path / "b", *network, bound=least * factor)
            found = verdict(go, tmp_path / "b"), python_verdict(tmp_path / "b")
            assert (not found[0], not found[1]) == (valid, valid), (spread, factor, found)
    assert tried


MODELS = {
    "leaky": lambda: nn.LeakyReLU(0.1),
    "negative": lambda: nn.LeakyReLU(-0.3),
    "abs": layers.Abs,
    "prelu": lambda: nn.PReLU(init=0.3),
    "relu": nn.ReLU,
}


@pytest.fixture(scope="module")
def proofs(tmp_path_factory) -> dict[str, Path]:
    """Bundles with multipliers that a search found."""
    folder = tmp_path_factory.mktemp("proofs")
    for name, activation in MODELS.items():
        torch.manual_seed(3)
        net = nn.Sequential(
            nn.Linear(6, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3)
        )
        prove(net.eval(), folder / name, torch.rand(3, 6), method="lipsdp", seconds=10)
    return {name: folder / name for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_claims_of_a_search_that_are_made_smaller(name, proofs, go: Path, tmp_path) -> None:
    """No constant is VALID that the exact form contradicts."""
    record = json.loads((proofs[name] / "proof.json").read_text())
    assert not verdict(go, proofs[name])
    tensors = _tensors(proofs[name])
    blocks = record["network"]["blocks"]
    weights = [tensors[block["inner"][0]["weight"]] for block in blocks]
    weights.append(tensors[record["network"]["last"][0]["weight"]])
    slopes = [tensors[block["activation"]["slopes"]] for block in blocks]
    multipliers = [tensors[key] for key in record["network"]["method"]["weights"]]
    least = least_constant((weights, slopes, multipliers))
    folder = shutil.copytree(proofs[name], tmp_path / "b")
    record["samples"] = None
    for shrink in (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        for base in (float.fromhex(record["bound"]), least):
            changed = record | {"bound": (base * (1 - shrink)).hex()}
            (folder / "proof.json").write_text(json.dumps(changed))
            found, other = verdict(go, folder), python_verdict(folder)
            # multipliers are rounded, to 24 bits in Go and to 12 in check.py: they are others then
            if base * (1 - shrink) < least * (1 - 1e-6):
                assert found
            if base * (1 - shrink) < least * (1 - 2e-3):
                assert other
            if base * (1 - shrink) > least * (1 + 1e-5):
                assert not found


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    import safetensors.numpy

    data = safetensors.numpy.load_file(folder / "tensors.safetensors")
    return {name: a.astype(np.float64) for name, a in data.items()}


NETWORK = crafted((4, 5, 5, 3), 0.0, np.random.default_rng(0))
BOUND = 2 * least_constant(NETWORK)


def both(go: Path, folder: Path) -> bool:
    """Whether a bundle is VALID, for both."""
    found, other = verdict(go, folder), python_verdict(folder)
    assert bool(found) == bool(other), (found, other)
    return not found


def test_multipliers_that_are_none(go: Path, tmp_path) -> None:
    weights, slopes, (first, second) = NETWORK
    plain(tmp_path / "b", *NETWORK, bound=BOUND)
    assert both(go, tmp_path / "b")
    for value in (0.0, -0.0, -1.0, -5e-324, math.nan, math.inf, -math.inf, 5e-324, 1.7e308):
        for where in (slice(2, 3), slice(None)):
            changed = first.copy()
            changed[where] = value
            plain(tmp_path / "b", weights, slopes, [changed, second], bound=BOUND)
            assert not both(go, tmp_path / "b"), value
    for wrong in (
        [first, second[:-1]],
        [first[:-1], second],
        [first, np.append(second, 1.0)],
        [first[:, None], second],
        [first[None], second],
        [np.array(1.0), second],
        [np.zeros(0), second],
        [first],
        [first, second, second],
        [second, first],
        [],
    ):
        plain(tmp_path / "b", weights, slopes, wrong, bound=BOUND)
        assert not both(go, tmp_path / "b"), wrong


def test_parts_that_have_no_slopes_of_their_own(go: Path, tmp_path) -> None:
    """A sort, a step, a way around, more maps, or none."""
    record = plain(tmp_path / "b", *NETWORK, bound=BOUND)
    take = {"map": "take", "norm": "0x1p+0", "index": None, "outputs": [5]}
    sort = {"kind": "sort", "size": 5, "descending": True}

    def refused(changed: dict, of: str = "block", without: tuple[str, ...] = ()) -> None:
        network = json.loads(json.dumps(record["network"]))
        block = network["blocks"][1]
        (block if of == "block" else network).update(changed)
        block["bound"] = "0x1p+40"
        for key in without:
            del block[key]
        text = json.dumps(record | {"network": network})
        (tmp_path / "b" / "proof.json").write_text(text)
        assert not both(go, tmp_path / "b"), changed

    refused({"activation": sort})
    refused({"activation": sort | {"size": 1}})
    refused({"skip": []})
    refused({"skip": [record["network"]["blocks"][1]["inner"][0]]})
    refused({"outer": [take]})
    refused({"inner": [take, *record["network"]["blocks"][1]["inner"]]})
    refused({"inner": []})
    refused({"step": "0x1p-30"}, without=("outer", "skip"))
    last = record["network"]["last"]
    refused({"last": []}, "network")
    refused({"last": [*last, take | {"outputs": [3]}]}, "network")
    refused({"last": [take, *last]}, "network")
    names = record["network"]["method"]["weights"]
    for method in (
        [],
        {},
        "multipliers",
        True,
        {"kind": "multipliers"},
        {"kind": "other", "weights": names},
        {"kind": ["multipliers"], "weights": names},
        {"kind": "multipliers", "weights": names, "more": 1},
        {"kind": "multipliers", "weights": "t0"},
        {"kind": "multipliers", "weights": {"t0": 0, "t1": 1}},
        {"kind": "multipliers", "weights": None},
        {"kind": "multipliers", "weights": [None, None]},
        {"kind": "multipliers", "weights": [["t0"], ["t1"]]},
        {"kind": "multipliers", "weights": [0, 1]},
        {"kind": "multipliers", "weights": ["w0", "w1"]},
        {"kind": "multipliers", "weights": ["t0", "t7"]},
        {"kind": "multipliers", "weights": ["s0", "s0"]},
    ):
        refused({"method": method}, "network")


def test_shapes_of_inputs(go: Path, tmp_path) -> None:
    for shape, valid in (((4,), True), ((1, 2, 2), True), ((4, 1, 1), True), ((1, 2, 3), False)):
        plain(tmp_path / "b", *NETWORK, bound=BOUND, shape=shape)
        assert both(go, tmp_path / "b") is valid, shape


def test_one_tensor_in_several_places(go: Path, tmp_path) -> None:
    w = np.array([[2.0, 1.0], [-1.0, 0.5]])
    big, small = np.full(2, 2.0**12), np.full(2, 2.0**4)
    record = plain(tmp_path / "b", [w, w, w], [np.zeros(1)] * 2, [big, small], bound=2.0**9)
    assert both(go, tmp_path / "b")
    blocks = record["network"]["blocks"]
    blocks[1] = blocks[0]
    record["network"]["last"][0]["weight"] = "w0"
    (tmp_path / "b" / "proof.json").write_text(json.dumps(record))
    assert both(go, tmp_path / "b")
    record["network"]["method"]["weights"] = ["t1", "t1"]  # too small for what follows
    (tmp_path / "b" / "proof.json").write_text(json.dumps(record))
    assert not both(go, tmp_path / "b")


@pytest.mark.parametrize("power", [-1000, -400, -40, 40, 400, 980])
def test_units_are_no_matter(power, go: Path, tmp_path) -> None:
    """Weights of any power of two, up to 1e300 and down to 1e-300."""
    (first, *rest), slopes, multipliers = NETWORK
    for factor, valid in ((1.0, True), (1e-3, False)):
        scaled = [first * 2.0**power, *rest], slopes, multipliers
        plain(tmp_path / "b", *scaled, bound=BOUND * factor * 2.0**power)
        assert both(go, tmp_path / "b") is valid
        if abs(power) < 500:
            scaled = [first, rest[0], rest[1] * 2.0**power], slopes
            larger = [t * 4.0**power for t in multipliers]
            plain(tmp_path / "b", *scaled, larger, bound=BOUND * factor * 2.0**power)
            assert both(go, tmp_path / "b") is valid
    plain(tmp_path / "b", *NETWORK, bound=1.7e308)
    assert both(go, tmp_path / "b")
    for bound in (5e-324, 1e-300):
        plain(tmp_path / "b", *NETWORK, bound=bound)
        assert not both(go, tmp_path / "b")


def test_no_false_claim_is_valid_with_wild_numbers(go: Path, tmp_path) -> None:
    """Where only one of them accepts, what it accepts is true."""
    choices = random.Random(5)
    numbers = (1e300, -1e300, 1e-300, 5e-324, 1e150, 1e-150, 0.0, 0.1, 2.0**40, -(2.0**-40), 1e20)
    accepted = 0
    for turn in range(150):
        slope = choices.choice(list(SLOPES.values()))
        sizes = choices.choice(SIZES)
        weights, slopes, multipliers = crafted(sizes, slope, np.random.default_rng(turn))
        for _ in range(choices.choice([1, 1, 2, 5])):
            target = choices.choice([*weights, *weights, *slopes, *multipliers])
            flat = target.reshape(-1)
            place = choices.randrange(len(flat))
            flat[place] = choices.choice([*numbers, flat[place] * 2.0**-30, flat[place] * 1.001])
        bound = 2.0 ** choices.uniform(0, 30) * choices.choice([1.0, 1.0, 1e-200, 1e200])
        plain(tmp_path / "b", weights, slopes, multipliers, bound=bound)
        found, other = verdict(go, tmp_path / "b"), python_verdict(tmp_path / "b")
        if not found or not other:
            accepted += 1
            assert exactly_positive(weights, slopes, multipliers, bound), (turn, found, other)
    assert accepted > 20


def test_zeros(go: Path, tmp_path) -> None:
    """Rows and columns of zeros, and constants of 0; check.py asks for a positive diagonal."""
    weights, slopes, multipliers = (list(part) for part in NETWORK)
    changed = [w.copy() for w in weights]
    changed[0][1] = 0
    changed[1][:, 2] = 0
    plain(tmp_path / "b", changed, slopes, multipliers, bound=BOUND)
    assert both(go, tmp_path / "b")
    unused = multipliers[0].copy()
    unused[2] = 0  # nothing looks at this neuron
    plain(tmp_path / "b", changed, slopes, [unused, multipliers[1]], bound=BOUND)
    assert not verdict(go, tmp_path / "b")
    plain(tmp_path / "b", weights, slopes, multipliers, bound=0.0)
    assert not both(go, tmp_path / "b")
    nothing = [*weights[:2], weights[2] * 0]
    plain(tmp_path / "b", nothing, slopes, multipliers, bound=0.0)
    assert not both(go, tmp_path / "b")  # the form is negative, though the claim is true
    plain(tmp_path / "b", nothing, slopes, [t * 0 for t in multipliers], bound=0.0)
    assert not verdict(go, tmp_path / "b")
    tiny = [*weights[:2], weights[2] * 0 + 5e-324]
    plain(tmp_path / "b", tiny, slopes, [t * 0 for t in multipliers], bound=0.0)
    assert not both(go, tmp_path / "b")


def test_slopes_of_single_neurons(go: Path, tmp_path) -> None:
    """Each neuron has its own; check.py may take the widest for all."""
    weights, _, multipliers = NETWORK
    slopes = [np.array([0.0, 0.25, 0.5, 0.75, 1.0]), np.array([-0.25, 0.0, 0.5, 0.1, 1.0])]
    multipliers = [multipliers[0] * 64, multipliers[1] * 4]
    least = least_constant((weights, slopes, multipliers))
    assert least < 2.0**39
    for factor, valid in ((1 + 1e-6, True), (1 - 1e-6, False), (1 - 1e-3, False)):
        plain(tmp_path / "b", weights, slopes, multipliers, bound=least * factor)
        assert (not verdict(go, tmp_path / "b")) is valid
        assert python_verdict(tmp_path / "b") or valid


def test_bits_of_multipliers_and_slopes(go: Path, tmp_path) -> None:
    """Any bits at all: no panic, no traceback, and no smaller constant from rounding."""
    choices = random.Random(9)
    weights, slopes, multipliers = NETWORK
    least = least_constant(NETWORK)
    for _ in range(60):
        changed = [t.copy() for t in multipliers]
        bits = struct.pack("<Q", choices.getrandbits(64))
        changed[choices.randrange(2)][choices.randrange(5)] = struct.unpack("<d", bits)[0]
        plain(tmp_path / "b", weights, slopes, changed, bound=least / 2)
        found, other = verdict(go, tmp_path / "b"), python_verdict(tmp_path / "b")
        if not found or not other:
            assert exactly_positive(weights, slopes, changed, least / 2)
