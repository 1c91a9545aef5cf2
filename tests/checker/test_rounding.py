"""Level float: bounds of rounding against executions that try to be far off, and false claims."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from onelip.checker import check
from tests.checker.executions import Exact, executions, within
from tests.checker.floats import FLOAT32, FLOAT64, WIDE, Crafted, errors, numbers, reason
from tests.checker.mutants import mutate
from tests.checker.truth import false_claims

Rng = np.random.Generator
SEEDS = range(2)
IMAGE = (2, 4, 4)


def dense(rng: Rng) -> Crafted:
    net = Crafted(6)
    for rows, columns in ((7, 6), (5, 7)):
        inner = [net.dense(numbers(rng, rows, columns, spread=3), numbers(rng, rows))]
        net.block(inner, net.leaky(rng.choice([0.0, 0.3, -1.0, 1.7], size=1)))
    net.last = [net.dense(numbers(rng, 3, 5), numbers(rng, 3))]
    return net


def long_sums(rng: Rng) -> Crafted:
    """Positive terms only: the largest first is as bad as it gets."""
    net = Crafted(40)
    net.last = [net.dense(np.abs(numbers(rng, 3, 40, spread=6)))]
    return net


def convolutions(rng: Rng) -> Crafted:
    net = Crafted(*IMAGE)
    first = net.convolution(numbers(rng, 4, 2, 3, 3), IMAGE, numbers(rng, 4), stride=[2, 1])
    net.block([first], {"kind": "sort", "size": 2, "descending": True})
    grouped = {"groups": 2, "padding": [2, 4], "dilation": [1, 2], "circular": True}
    second = net.convolution(numbers(rng, 4, 2, 1, 2), (4, 2, 4), numbers(rng, 4), **grouped)
    pool = {"kind": "max-pool", "size": [3, 2], "stride": [1, 2]}
    net.block([second], pool)
    exact = Exact(tensors=net.tensors)
    count = exact.activated(pool, exact.linear(second, np.zeros((4, 2, 4)))).size
    net.last = [net.dense(numbers(rng, 3, count))]
    return net


def circular(rng: Rng) -> Crafted:
    """As much padding as the image has, and a stride that does not divide it."""
    net = Crafted(1, 3, 3)
    how = {"padding": [3, 3], "circular": True, "stride": [1, 2]}
    conv = net.convolution(np.abs(numbers(rng, 2, 1, 1, 1)), (1, 3, 3), **how)
    net.block([conv], net.leaky([0.0]))
    net.last = [net.dense(numbers(rng, 4, 2 * 9 * 5))]
    return net


def steps(rng: Rng) -> Crafted:
    net = Crafted(*IMAGE)
    how = {"circular": bool(rng.integers(2))}
    inner = net.convolution(numbers(rng, 3, 2, 3, 3), IMAGE, numbers(rng, 3), **how)
    net.block([inner], net.leaky([0.0]), step=float(np.float32(0.03)).hex())
    net.last = [net.dense(numbers(rng, 3, 32))]
    return net


def flat_steps(rng: Rng) -> Crafted:
    net = Crafted(6)
    for _ in range(3):
        inner = net.dense(numbers(rng, 4, 6), numbers(rng, 4))
        net.block([inner], net.leaky([0.25]), step=float(np.float32(0.1)).hex())
    return net


def exponential(rng: Rng) -> Crafted:
    net = Crafted(*IMAGE)
    w = numbers(rng, 2, 2, 3, 3) / np.float32(8)
    w = (w - w[:, :, ::-1, ::-1].swapaxes(0, 1)).astype(np.float32)
    of = net.convolution(w, IMAGE, circular=bool(rng.integers(2)))
    norm = math.exp(float.fromhex(of["norm"]))
    net.block([{"map": "exponential", "norm": norm.hex(), "of": of, "terms": 7}], net.leaky([0.0]))
    return net


def sums(rng: Rng) -> Crafted:
    """Ways around, factors, copies and an adjoint."""
    net = Crafted(*IMAGE)
    conv = net.convolution(numbers(rng, 3, 2, 2, 3), IMAGE, stride=[2, 1], padding=[0, 1])
    back = {"map": "adjoint", "norm": conv["norm"], "of": conv, "inputs": [*IMAGE]}
    back |= {"bias": net.add(numbers(rng, 2))}
    factor = numbers(rng, 3, 1, 1)
    scale = {"map": "scale", "factor": net.add(factor), "shift": net.add(numbers(rng, 3, 1, 1))}
    scale |= {"norm": float(np.abs(factor).max()).hex()}
    net.block([conv, scale], net.leaky([0.1]), outer=[back], skip=[])
    index = np.array([0, 0, 5, -1, 0, 7, 31, 31], np.int64)
    take = {"map": "take", "index": net.add(index), "outputs": [8], "norm": "0x1.bb67ae8584cabp+0"}
    net.block([take], net.leaky([1.0]))
    net.last = [net.dense(numbers(rng, 3, 8))]
    return net


NETWORKS: dict[str, Callable[[Rng], Crafted]] = {
    made.__name__: made
    for made in (dense, long_sums, convolutions, circular, steps, flat_steps, exponential, sums)
}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_execution_is_farther_than_the_bound(name: str, wide: bool) -> None:
    nearest = 0.0
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        net = NETWORKS[name](rng)
        x, radius = np.abs(numbers(rng, 2, *net.shape)), float(rng.choice([0.0, 1e-3, 1.0]))
        record = net.record(x, [radius] * 2, WIDE if wide else FLOAT32)
        bounds = errors(record, net.tensors, x, radius)
        exact = Exact(tensors=net.tensors)
        for run in executions(net.tensors, wide):
            for sample, bound in zip(x, bounds, strict=True):
                attacked = within(rng, sample, radius) if radius else sample
                off = float(np.linalg.norm(run(record, attacked) - exact(record, attacked)))
                assert off <= bound, (seed, run)
                nearest = max(nearest, off / bound)
    assert nearest > (0.9 if name == "long_sums" and not wide else 1e-3)


def alone(kind: str) -> Crafted:
    """A network in which hardly more than one kind of operation rounds."""
    net = Crafted(1, 1, 1) if kind != "exponential" else Crafted(2, 1, 1)
    if kind == "scale":
        factor, shift = (net.add(np.array([a], np.float32)) for a in (1.3, 0.7))
        norm = float(np.float32(1.3)).hex()
        net.last = [{"map": "scale", "factor": factor, "shift": shift, "norm": norm}]
    elif kind == "leaky":
        net.block([], net.leaky([-2.3]))
    elif kind == "skip":
        net.block([], net.leaky([1.0]), skip=[])
    elif kind == "step":
        net.block([net.dense(np.ones((1, 1), np.float32))], net.leaky([1.0]), step="0x1.8p+1")
    else:
        w = np.array([[0, 1], [-1, 0]], np.float32).reshape(2, 2, 1, 1)
        of = net.convolution(w, (2, 1, 1), padding=[0, 0])
        norm = (2**0.5 * 1.001).hex()
        net.last = [{"map": "exponential", "norm": norm, "of": of, "terms": 2}]
    return net


@pytest.mark.parametrize("kind", ["scale", "leaky", "skip", "step", "exponential"])
def test_each_operation_counts(kind: str) -> None:
    net = alone(kind)
    x = np.full((1, *net.shape), -1.3 if kind == "leaky" else 1.3, np.float32)
    record = net.record(x, [0.0])
    (bound,) = errors(record, net.tensors, x, 0.0)
    exact, runs = Exact(tensors=net.tensors)(record, x[0]), executions(net.tensors)
    off = max(float(np.linalg.norm(run(record, x[0]) - exact)) for run in runs)
    assert 0.8 * bound < off <= bound * (1 + 1e-8)  # float64 rounds the difference


def test_far_from_the_sample() -> None:
    """Nothing is known of an attacked input but its distance."""
    net = long_sums(np.random.default_rng(0))
    x = np.zeros((1, 40), np.float32)
    record = net.record(x, [1.0])
    w = net.tensors["t0"].astype(np.float64)
    attacked = (0.999 * np.linalg.svd(w)[2][0]).astype(np.float32)
    attacked = np.abs(attacked)
    (bound,) = errors(record, net.tensors, x, 1.0)
    exact = Exact(tensors=net.tensors)(record, attacked)
    off = max(np.linalg.norm(run(record, attacked) - exact) for run in executions(net.tensors))
    assert 0.3 * bound < off <= bound


def test_the_formula_of_the_page() -> None:
    rng = np.random.default_rng(0)
    w, b = numbers(rng, 5, 9), numbers(rng, 5)
    x, radius, u, t = numbers(rng, 1, 9), 0.5, 2.0**-24, 2.0**-124
    for level, unit in ((FLOAT32, u), (WIDE, 2.0**-53), (FLOAT64, 2.0**-53)):
        net = Crafted(9)
        net.last = [net.dense(w, b)]
        found = errors(net.record(x, [radius], level), net.tensors, x, radius)[0]
        v, a, n = w.astype(float), x[0].astype(float), 9
        s, y = abs(v) @ abs(a) + abs(b), v @ a + b
        c, start = np.linalg.norm(v, 2), t * 3 if level != FLOAT64 else 0.0
        wide = math.sqrt(abs(v).sum(1).max() * abs(v).sum(0).max())
        g = unit / (1 - (n + 1) * unit)
        away = radius + start
        r = g * np.linalg.norm(s + n * (s + abs(y)) / 2)
        r += g * (wide + n * (wide + min(wide, c)) / 2) * away
        if level == WIDE:
            r += u * (np.linalg.norm(y) + c * away + r)
        assert found == pytest.approx(r, rel=2e-4)
        assert found >= r * (1 - 1e-9)


@pytest.mark.parametrize("name", ["convolutions", "circular", "steps", "exponential", "sums"])
def test_norms_of_absolute_weights_and_counts(name: str) -> None:
    for seed in SEEDS:
        net = NETWORKS[name](np.random.default_rng(seed))
        held = tensors(net)
        record = net.record(np.zeros((1, *net.shape), np.float32), [0.0])
        network = check.Network(record["network"], held, tuple(net.shape), lambda _: None)
        sums = rounding_of(held, FLOAT32).sums
        for part in network.parts:
            for entry in [*part[0], *part[6]]:
                linear = entry.of if "terms" in vars(entry) else entry
                if type(linear) is check.MAPS["take"] or type(linear) is check.MAPS["scale"]:
                    continue
                found, count = sums.extent(linear)
                ones = KINDS["sums"].absolute(linear, check.ONE)
                ones.shift = None
                basis = np.eye(math.prod(linear.inputs), dtype=np.int64)
                grid = check.Grid(basis.reshape(-1, *linear.inputs), 0)
                image = ones.image(grid)
                matrix = image.ints.reshape(len(basis), -1) * float(check.two(image.exponent))
                true = np.linalg.norm(matrix, 2)
                assert true * (1 - 1e-9) <= found <= 4 * true
                assert count >= (matrix != 0).sum(0).max()


KINDS = check.KINDS


def tensors(net: Crafted) -> Any:
    """Tensors of a network, as the checker reads them."""
    kept = {k: np.ascontiguousarray(a) for k, a in net.tensors.items()}
    return check.Tensors(safetensors.numpy.save(kept))


def rounding_of(held: Any, level: dict[str, str]) -> Any:
    """Rules of a level."""
    sizes = KINDS["sums"].arithmetics(level["numbers"], level["sums"])
    return KINDS["rounding"].Rounding(check, held, *sizes)


def test_a_network_that_computes_a_tie(tmp_path) -> None:
    """2^24 + 1 - 2^24 is 1, and 0 in float32: level real is right, level float is not."""
    net = Crafted(3)
    w = np.array([[2.0**24, 1, -(2.0**24)], [0.5, 0, 0]], np.float32)
    net.last = [net.dense(w)]
    x, radius = np.ones((1, 3), np.float32), 2.0**-40
    run = executions(net.tensors)[0]
    record = net.record(x, [radius])
    assert run(record, x[0]).tolist() == [0.0, 0.5]
    assert "radius" in reason(tmp_path, record, net.tensors)
    for level in ("real", WIDE, FLOAT64):
        assert not reason(tmp_path, record | {"level": level}, net.tensors)


@pytest.mark.parametrize("level", [FLOAT32, WIDE, FLOAT64], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_radii_up_to_a_hair(name: str, level: dict[str, str], tmp_path) -> None:
    rng = np.random.default_rng(7)
    net = NETWORKS[name](rng)
    x = numbers(rng, 2, *net.shape)
    radii = [largest_radius(net, x, level, at) for at in range(2)]
    record = net.record(x, [radius * (1 - 1e-6) for radius in radii], level)
    assert not reason(tmp_path, record, net.tensors)
    record["samples"]["radii"][0] = (radii[0] * (1 + 1e-6)).hex()
    assert "sample 0: the radius" in reason(tmp_path, record, net.tensors)
    gain = 1 + 1e-6 if level == FLOAT32 else 1 - 1e-6  # float32 with float64 sums rounds little
    record["samples"]["radii"][0] = (radii[0] * gain).hex()
    assert not reason(tmp_path, record | {"level": "real"}, net.tensors)
    record["samples"]["radii"][0] = (radii[0] * 0.99).hex()
    for run in executions(net.tensors, level != FLOAT32)[:6] if level != FLOAT64 else []:
        for _ in range(5):
            outputs = run(record, within(rng, x[0], radii[0] * 0.99))
            own = record["samples"]["predictions"][0]
            assert (np.delete(outputs, own) < outputs[own]).all()


def largest_radius(net: Crafted, x: Any, level: dict[str, str], at: int) -> float:
    """The radius of a sample up to which the checker agrees, by halving."""
    record, held = net.record(x, [0.0] * len(x)), tensors(net)
    network = check.Network(record["network"], held, tuple(net.shape), lambda _: None)
    own, head = record["samples"]["predictions"][at], record["samples"]["head"]
    grid = check.Grid.of(x.astype(np.float64), check.VALUE)
    left, low, high = rounding_of(held, level).around(network, head)(grid), 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        pairs = left(at, own, check.Fraction(middle)).values()
        held_back = all(middle * constant < margin for margin, constant in pairs)
        low, high = (middle, high) if held_back else (low, middle)
    return low


def simple() -> tuple[dict[str, Any], dict[str, Any]]:
    """A bundle that is VALID at all three levels."""
    net = dense(np.random.default_rng(1))
    x = numbers(np.random.default_rng(2), 2, 6)
    return net.record(x, [1e-4, 0.0]), net.tensors


BIG, NAN, SUB = np.float64(1e39), np.float32("nan"), np.float32(1e-39)
LEVELS = {
    "a string": "float",
    "an empty object": {},
    "no sums": {"kind": "float", "numbers": "float32"},
    "more": FLOAT32 | {"more": 1},
    "another kind": FLOAT32 | {"kind": "real"},
    "only real": {"kind": "real"},
    "shorter sums": FLOAT64 | {"sums": "float32"},
    "half": FLOAT32 | {"numbers": "float16"},
    "a number": FLOAT32 | {"sums": 32},
    "an object": FLOAT32 | {"sums": {"numbers": "float32"}},
    "a list": [FLOAT32],
    "null": None,
    "true": True,
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_that_are_none(name: str, tmp_path) -> None:
    record, held = simple()
    assert not reason(tmp_path, record, held)
    assert reason(tmp_path, record | {"level": LEVELS[name]}, held)


def generous(record: dict[str, Any]) -> dict[str, Any]:
    """The same with claims that hold for any weights below 2^140, and no radii."""
    found = json.loads(json.dumps(record))
    found["bound"] = "0x1p+900"
    found["samples"]["radii"] = ["0x0p+0"] * len(found["samples"]["radii"])
    for block in found["network"]["blocks"]:
        block["bound"] = "0x1p+300"
        for entry in block["inner"]:
            entry["norm"] = "0x1p+150"
    for entry in found["network"]["last"]:
        entry["norm"] = "0x1p+150"
    return found


@pytest.mark.parametrize("number", [0.1, 1e-39, 1e-46, 1e39, 2.0**-150, 1 + 2.0**-24])
def test_numbers_that_float32_does_not_have(number: float, tmp_path) -> None:
    record, held = simple()
    record = generous(record)
    for name, a in held.items():
        changed = a.astype(np.float64)
        assert not reason(tmp_path, record, held | {name: changed})  # float32 stored wider
        changed.flat[0] = number
        assert "no float32" in reason(tmp_path, record, held | {name: changed})
        assert not reason(tmp_path, record | {"level": FLOAT64}, held | {name: changed})
    assert "no float32" in reason(tmp_path, record, held | {"more": np.array([number])})
    assert "no float32" in reason(tmp_path, record | {"samples": None}, held | {"m": changed})


@pytest.mark.parametrize("number", [5e-324, 2.0**-1023, np.nan, np.inf])
def test_numbers_that_no_level_takes(number: float, tmp_path) -> None:
    record, held = simple()
    record = generous(record) | {"level": FLOAT64}
    held = {name: a.astype(np.float64) for name, a in held.items()}
    assert not reason(tmp_path, record, held)
    for name, a in held.items():
        changed = a.copy()
        changed.flat[0] = number
        assert reason(tmp_path, record, held | {name: changed})


@pytest.mark.parametrize("step", ["0x1.999999999999ap-4", "0x1p-127", "0x1p+128"])
def test_steps_that_float32_does_not_have(step: str, tmp_path) -> None:
    net = flat_steps(np.random.default_rng(0))
    x = numbers(np.random.default_rng(2), 1, 6)
    record = net.record(x, [0.0])
    assert not reason(tmp_path, record, net.tensors)
    record = generous(record)
    for block in record["network"]["blocks"]:
        block["bound"] = "0x1p+500"
    record["bound"] = "0x1p+900"
    record["network"]["blocks"] = record["network"]["blocks"][:2]
    record["bound"] = "0x1p+1000"
    assert not reason(tmp_path, record, net.tensors)
    record["network"]["blocks"][1]["step"] = step
    assert "step" in reason(tmp_path, record, net.tensors)
    assert not reason(tmp_path, record | {"level": "real"}, net.tensors)


def test_what_nothing_is_said_of(tmp_path) -> None:
    record, held = simple()
    copy = json.loads(json.dumps(record))
    copy["network"]["blocks"][0]["activation"] = {"kind": "tanh"}
    for block in copy["network"]["blocks"]:
        block["bound"] = "0x1p+20"
    copy |= {"bound": "0x1p+99", "samples": None}
    assert "tanh" in reason(tmp_path, copy, held)
    assert not reason(tmp_path, copy | {"level": "real"}, held)
    record["samples"]["head"] = {"kind": "curvature", "bends": "t0"}
    assert "unknown kind curvature" in reason(tmp_path, record, held)


def test_numbers_that_may_overflow(tmp_path) -> None:
    """Products of 2^60 and 2^60, and a radius that no float32 has."""
    net = Crafted(2)
    net.block([net.dense(np.array([[2.0**60, 0], [0, 1]], np.float32))], net.leaky([1.0]))
    net.last = [net.dense(np.array([[2.0**60, 0], [0, 1]], np.float32))]
    x = np.array([[1, 0]], np.float32)
    record = net.record(x, [2.0**-10])
    assert "overflow" in reason(tmp_path, record, net.tensors)
    assert not reason(tmp_path, record | {"level": "real"}, net.tensors)
    record["samples"]["radii"] = ["0x0p+0"]
    assert not reason(tmp_path, record, net.tensors)
    record, held = simple()
    record["samples"]["radii"] = ["0x1p+200", "0x0p+0"]
    assert reason(tmp_path, record, held)


def test_repeated_entries_carry_one_error(tmp_path) -> None:
    """A copy taken a hundred times has a hundred times the squared error."""
    net = Crafted(1)
    net.block([net.dense(np.array([[1.5]], np.float32))], net.leaky([1.0]))
    index = net.add(np.zeros(100, np.int64))
    net.last = [{"map": "take", "index": index, "outputs": [100], "norm": "0x1.4p+3"}]
    x = np.ones((1, 1), np.float32)
    one, record = errors(net.record(x, [0.0]), net.tensors, x, 0.0)[0], net.record(x, [0.0])
    net.last = []
    assert one == pytest.approx(10 * errors(net.record(x, [0.0]), net.tensors, x, 0.0)[0])
    record["network"]["last"][0]["norm"] = "0x1.3p+3"
    assert reason(tmp_path, record, net.tensors)


def test_mutants(tmp_path, capsys) -> None:
    """No changed bundle that is VALID has an execution that changes a prediction."""
    for name, make in NETWORKS.items():
        net = make(np.random.default_rng(3))
        x = numbers(np.random.default_rng(4), 2, *net.shape)
        radii = [largest_radius(net, x, FLOAT32, at) * (1 - 1e-5) for at in range(2)]
        assert not reason(tmp_path / name, net.record(x, radii), net.tensors)
    valid = 0
    for seed in range(100):
        rng, folder = random.Random(seed), tmp_path / "mutant"
        mutate(tmp_path / rng.choice(list(NETWORKS)), folder, rng)
        status = check.main([str(folder)])
        assert capsys.readouterr().out.splitlines()[-1].startswith("INVALID: ") == (status == 1)
        if status == 0:
            assert not false_claims(folder)
            changed = overturned(folder, np.random.default_rng(seed))
            assert not changed, f"seed {seed}: VALID, but {changed}"
            valid += 1
    assert valid > 3


def overturned(folder: Path, rng: Rng) -> str:
    """An execution in float32 within a radius that changes a prediction; empty if none is found."""
    record = json.loads((folder / "proof.json").read_text())
    if record["level"] not in (FLOAT32, WIDE) or record["samples"] is None:
        return ""
    held, samples = safetensors.numpy.load_file(folder / "tensors.safetensors"), record["samples"]
    every = zip(held[samples["inputs"]], samples["predictions"], samples["radii"], strict=True)
    for x, own, text in every:
        radius = float.fromhex(text)
        for run in executions(held, record["level"] == WIDE)[::4] if radius else []:
            outputs = run(record, within(rng, x.astype(np.float64), radius))
            if not (np.delete(outputs, own) < outputs[own]).all():
                return f"{run.order}: {outputs}"
    return ""
