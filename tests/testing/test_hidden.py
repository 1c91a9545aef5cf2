"""Planted counter-examples: there, not found by attacks, and beyond every certified radius."""

import pytest
import torch

import onelip
from onelip import attacks
from onelip.checker import check
from onelip.errors import NotApplicableError
from onelip.testing import hidden_counter_examples
from onelip.testing.broken import one_step_radius, sampled_radius

EXAMPLES = {example.name: example for example in hidden_counter_examples((0,))}
METHODS = "product", "liplt", "eclipse-fast", "eclipse", "lipsdp", "local"
SLOW = {"deep 0", "sort 0"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_they_are_there_and_the_gradient_does_not_show_them(name: str) -> None:
    example = EXAMPLES[name]
    x = example.x.clone().requires_grad_()
    own = int(example.model(x).argmax())
    assert int(example.model(example.planted).argmax()) != own
    assert bool((example.planted >= 0).all() and (example.planted <= 1).all())
    logits = example.model(x)[0]
    (gradient,) = torch.autograd.grad(logits[own] - logits[1 - own], x)
    along = (example.planted - example.x) / example.distance
    assert float((gradient * along).sum()) > -1e-6  # downhill is not the way there


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("method", METHODS)
def test_no_certificate_reaches_the_planted_input(method: str, name: str) -> None:
    if name in SLOW and method in ("eclipse", "lipsdp", "local"):
        pytest.skip("seconds: benchmarks/hidden_counter_examples.py has it")
    example = EXAMPLES[name]
    try:
        radius = float(onelip.certify(example.model, example.x, method=method).radius)
    except NotApplicableError:
        pytest.skip("the method says that it does not cover the network")
    assert 0 < radius < example.distance


def test_nor_one_by_curvature() -> None:
    example = EXAMPLES["smooth 0"]
    radius = float(onelip.certify(example.model, example.x, method="curvature").radius)
    assert 0 < radius < example.distance


@pytest.mark.parametrize("name", ["ramp 0", "pool 0", "convolution 0", "smooth 0"])
def test_a_proof_holds_and_one_of_the_planted_distance_is_refused(name: str, tmp_path) -> None:
    example, folder = EXAMPLES[name], tmp_path / "proof"
    record = onelip.prove(example.model, folder, example.x)
    check.check(folder, say=lambda _: None)
    (text,) = record["samples"]["radii"]
    assert 0 < float.fromhex(text) < example.distance
    proof = (folder / "proof.json").read_text()
    (folder / "proof.json").write_text(proof.replace(text, example.distance.hex()))
    with pytest.raises(check.Invalid, match="radius"):
        check.check(folder, say=lambda _: None)


def test_gradients_do_not_find_them() -> None:
    hits = []
    for example in EXAMPLES.values():
        label = example.model(example.x).argmax(1)
        tools = attacks.FMN(30), attacks.PGD(20, 1, "margin")
        found = attacks.attack(example.model, example.x, label, 1.01 * example.distance, tools)
        hits += [example.name] * int(found.success.any())
    assert hits == []


def test_broken_bounds_are_found() -> None:
    """The positive control: what rests on estimates certifies the planted input, often."""
    for broken in (one_step_radius, sampled_radius):
        hits = [e.name for e in EXAMPLES.values() if broken(e.model, e.x) >= e.distance]
        assert len(hits) >= len(EXAMPLES) // 2, (broken.__name__, hits)
