"""Certificates of every method under one name."""

import math

import pytest
import torch
from torch import nn

import onelip
from onelip import bounds, certificates, certify, layers
from onelip.attacks import attack_radii
from onelip.attacks.registry import ATTACKS
from onelip.bounds import Best, ECLipsE, LipLT, LipSDP, Local, Product
from onelip.certificates import METHODS, HeadCurvature, RadiusProof, radius_proof
from onelip.errors import NotApplicableError, UsageError
from onelip.reading import read

RADII = (0.05, 0.1, 0.2, 0.4)
OF_PAIRS = (ECLipsE(), ECLipsE(fast=True), LipSDP(), LipSDP("layer"), Best(seconds=3), Local(RADII))


def trained(seed: int = 0, *, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Three classes on the square, by the nearest of three points, learnt well enough."""
    torch.manual_seed(seed)
    parts = [nn.Flatten(), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Linear(12, 3))
    x = torch.rand(2000, 1, 1, 2)
    labels = label(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return model.to(dtype).eval().requires_grad_(False)


def label(x: torch.Tensor) -> torch.Tensor:
    centres = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.5, 0.9]])
    return torch.cdist(x.flatten(1).float(), centres).argmin(1)


MODEL = trained()


def around(x: torch.Tensor, radius: torch.Tensor, count: int = 400) -> torch.Tensor:
    """Points of the plane at most 0.999999 radius away, ``(count, batch, 1, 1, 2)``."""
    angle = torch.rand(count, len(x), 1) * 2 * math.pi
    step = torch.cat([angle.cos(), angle.sin()], 2) * (0.999999 * radius)[None, :, None].float()
    share = torch.rand(count, len(x), 1).sqrt()
    share[: count // 2] = 1.0
    return x + (share * step).view(count, len(x), 1, 1, 2)


@pytest.mark.parametrize("level", ["real", "float"])
@pytest.mark.parametrize("method", OF_PAIRS, ids=lambda m: m.name)
def test_no_point_inside_a_radius_has_another_label(method, level):
    """The plane is searched densely, and every radius is below the distance that is found."""
    x = torch.rand(60, 1, 1, 2)
    found = certify(MODEL, x, method=method, level=level)
    assert bool((found.radius > 0).float().mean() > 0.8)
    for points in around(x, found.radius):
        assert torch.equal(MODEL(points).argmax(1), found.prediction)
    looser = certify(MODEL, x, method=Product(any_size=False), level=level)
    if method.name != "local":  # of larger radii the attacked inputs are longer, and round more
        slack = 1e-9 if level == "real" else 1e-2
        assert bool((found.radius >= looser.radius * (1 - slack)).all())
    assert float(found.radius.sum()) > 1.04 * float(looser.radius.sum())


@pytest.mark.parametrize("level", ["real", "float"])
def test_no_attack_breaks_a_local_radius(level):
    x = torch.rand(40, 1, 1, 2)
    found = certify(MODEL, x, method=Local(RADII), level=level)
    for eps in (0.02, 0.05, 0.1, 0.2):
        methods = [attack for name in ("pgd",) for attack in ATTACKS[name](30, 2)]
        (broken,) = attack_radii(MODEL, x, found.prediction, [eps], methods)
        assert not bool((broken & (found.radius > eps)).any())
    assert bool((found.radius > 0.05).any())


@pytest.mark.usefixtures("clock")
def test_the_method_and_the_head_are_said():
    x = torch.rand(5, 1, 1, 2)
    for method in OF_PAIRS:
        found = certify(MODEL, x, method=method)
        assert found.head == "pairwise"
        if method.name != "best":
            assert found.method == method.name
            assert (
                torch.equal(found.radius, certify(MODEL, x, method=METHODS[method.name]).radius)
                or method.name == "local"
            )
    name = certify(MODEL, x, method=Best(seconds=3)).method
    assert name.removeprefix("best: ") in bounds.METHODS
    assert name.startswith("best: ")


def test_constants_of_pairs_are_the_least_of_the_methods_and_the_product():
    x = torch.rand(30, 1, 1, 2)
    found, chain = certify(MODEL, x, method=LipSDP()), read(MODEL, (1, 1, 2))
    pairs = (LipSDP().bound(chain) * math.sqrt(2)).minimum(Product().logit_bounds(chain).pairwise)
    scores = MODEL(x).double()
    own = scores.argmax(1)
    quotients = (scores.gather(1, own[:, None]) - scores) / pairs[own]
    expected = quotients.nan_to_num(math.inf).scatter(1, own[:, None], math.inf).amin(1)
    torch.testing.assert_close(found.radius, expected, rtol=1e-9, atol=0)


@pytest.mark.usefixtures("clock")
def test_best_is_no_worse_than_liplt_and_lipsdp():
    x = torch.rand(50, 1, 1, 2)
    best = certify(MODEL, x, method=Best(seconds=5)).radius
    for method in (LipLT(), LipSDP(), ECLipsE()):
        assert bool((best >= certify(MODEL, x, method=method).radius * (1 - 1e-9)).all())


def test_local_radii_are_those_of_the_network_in_float64():
    model, x = trained(dtype=torch.float64), torch.rand(80, 1, 1, 2).double()
    alone, found = Local(RADII).radius(model, x), certify(model, x, method=Local(RADII))
    assert torch.equal(alone.prediction, found.prediction)
    torch.testing.assert_close(found.radius, alone.radius, rtol=1e-9, atol=1e-12)
    rounded = certify(model, x, method=Local(RADII), level="float")
    assert bool((rounded.radius <= found.radius).all())
    torch.testing.assert_close(rounded.radius, found.radius, rtol=1e-6, atol=1e-9)
    everywhere = certify(model, x, method=LipLT()).radius
    assert bool((found.radius >= everywhere.clamp(max=RADII[-1]) * (1 - 1e-9)).all())
    assert float(found.radius.sum()) > 1.05 * float(everywhere.sum())


def test_a_local_radius_is_never_below_that_of_the_cap_whatever_the_balls():
    x = torch.rand(50, 1, 1, 2)
    constant = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).eval().requires_grad_(False)
    constant[1].weight.zero_()
    constant[1].bias[:] = torch.tensor([1.0, 0.0])
    assert certify(constant, x, method=Local((0.3, 0.1))).radius.unique().tolist() == [math.inf]
    for radii in ((0.01,), (0.0, 1e-6), (50.0,)):
        found = certify(MODEL, x, method=Local(radii, cap=LipLT())).radius
        assert (found >= certify(MODEL, x, method=LipLT()).radius * (1 - 1e-12)).all()


def test_ties_and_wrong_labels_have_local_radius_0():
    head = nn.Linear(2, 3).eval().requires_grad_(False)
    head.weight[:] = torch.tensor([[1.0, 0], [1, 0], [0, 0]])
    head.bias.zero_()
    for level in ("real", "float"):
        assert not certify(head, torch.rand(9, 2), method=Local(RADII), level=level).radius.any()
        x = torch.rand(30, 1, 1, 2)
        wrong = (MODEL(x).argmax(1) + 1) % 3
        assert not certify(MODEL, x, wrong, method=Local(RADII), level=level).radius.any()
        assert certify(MODEL, x[:0], method=Local(RADII), level=level).radius.shape == (0,)


def test_a_sample_that_float64_predicts_otherwise_has_local_radius_0():
    """The model says 0 by a logit that float32 rounds away; the exact network says 1."""
    model = nn.Linear(1, 2).eval().requires_grad_(False)
    model.weight[:] = torch.tensor([[1.0], [1.0]])
    model.bias[:] = torch.tensor([0.0, 1e-9])
    x = torch.tensor([[1.0], [0.0]])
    assert model(x).argmax(1).tolist() == [0, 1]
    found = certify(model, x, method=Local(RADII))
    assert found.radius[0] == 0
    assert found.prediction.tolist() == [0, 1]
    flipped = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 2)).eval().requires_grad_(False)
    flipped[0].weight[:] = torch.tensor([[1.0], [1.0]])
    flipped[0].bias[:] = torch.tensor([0.0, 2.0**-25])
    flipped[1].weight[:] = torch.tensor([[0.0, 0.0], [-1.0, 1.0]])
    flipped[1].bias[:] = torch.tensor([2.0**-26, 0.0])
    one = torch.tensor([[1.0]])
    assert flipped(one).argmax(1).item() == 0
    assert flipped.double()(one.double()).argmax(1).item() == 1
    assert certify(flipped.float(), one).radius.item() > 0  # the level real takes logits as given
    assert certify(flipped, one, method=Local(RADII)).radius.item() == 0


def test_logits_that_are_no_numbers_have_local_radius_0():
    large = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).eval().requires_grad_(False)
    for layer in (large[0], large[2]):
        layer.weight.fill_(1e30)
    x = torch.tensor([[1.0, 1.0], [0.5, 0.0]])
    assert not torch.isfinite(large(x)).all()
    assert not certify(large, x, method=Local(RADII)).radius.any()


def test_a_binary_model_has_local_radii():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)).eval().double()
    x = torch.rand(40, 2).double()
    found = certify(model, x, method=Local(RADII))
    assert torch.equal(found.prediction, (model(x)[:, 0] > 0).long())
    points = around(x.view(40, 1, 1, 2), found.radius).flatten(2).double()
    for inside in points:
        assert torch.equal((model(inside)[:, 0] > 0).long(), found.prediction)
    assert float(found.radius.max()) > 0.05


def test_layers_that_work_in_place_do_not_move_the_samples():
    """Balls are those around what was given."""
    torch.manual_seed(0)
    first = [onelip.layers.Normalize([0.5], [0.5]), nn.ReLU(inplace=True), nn.Flatten()]
    model = nn.Sequential(*first[1:], nn.Linear(2, 3)).eval()
    x = torch.rand(20, 1, 1, 2)
    before = x.clone()
    found = certify(model, x, method=Local(RADII))
    assert torch.equal(x, before)
    plain = nn.Sequential(nn.ReLU(), nn.Flatten(), model[-1]).eval()
    assert torch.equal(found.radius, certify(plain, x, method=Local(RADII)).radius)


def test_what_certify_accepts():
    model = nn.Sequential(nn.Flatten(), layers.MLPHead(2, 3, hidden=8)).eval()
    x = torch.rand(6, 1, 1, 2)
    curved = certify(model, x, method=HeadCurvature())
    assert curved.method == METHODS["curvature"].name == "curvature"
    assert torch.equal(curved.radius, certify(model, x, method="curvature").radius)

    class Mine:
        name = "mine"

        def radius_proof(self, network: nn.Module, input_shape: tuple[int, ...]) -> RadiusProof:
            return radius_proof("product", network, input_shape)

    assert torch.equal(certify(model, x, method=Mine()).radius, certify(model, x).radius)
    for wrong, message in (("lipschitz", "known: product, eclipse-fast"), (3, "proves no radii")):
        with pytest.raises(UsageError, match=message):
            certify(model, x, method=wrong)
    deep = nn.Sequential(nn.Conv2d(1, 2, 1), nn.MaxPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(NotApplicableError):
        certify(deep, x, method=LipSDP())


def test_old_names_give_the_same_numbers_and_warn():
    from onelip.certificates._deprecated import RENAMED

    model = nn.Sequential(nn.Flatten(), layers.MLPHead(2, 3, hidden=8)).eval()
    x = torch.rand(6, 1, 1, 2)
    for word in ("product", "liplt", "curvature"):
        with pytest.warns(DeprecationWarning, match=rf"certificates\.{word}_constants is"):
            prover = getattr(certificates, f"{word}_constants")
        with pytest.warns(DeprecationWarning, match=r"certify\(method=...\)") as caught:
            old = certify(model, x, constants=prover)
        assert caught[0].filename == __file__
        new = certify(model, x, method=word)
        assert torch.equal(old.radius, new.radius)
        assert (old.method, old.head, old.bound) == (new.method, new.head, new.bound)
        with pytest.warns(DeprecationWarning, match="PROVERS"):
            assert certificates.PROVERS[word] is prover
    same = {"Constants": RadiusProof, "CurvatureConstants": certificates.CurvatureProof}
    for name, now in same.items():
        with pytest.warns(DeprecationWarning, match=name):
            assert getattr(certificates, name) is now
    with pytest.warns(DeprecationWarning, match="CertificateMethod"):
        assert certificates.Prover is not None
    assert set(RENAMED) == {
        *same,
        "PROVERS",
        "Prover",
        *(f"{word}_constants" for word in ("product", "liplt", "curvature")),
    }
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        certificates.nothing  # noqa: B018
