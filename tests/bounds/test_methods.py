"""The registry of bound methods, and what every one of them promises."""

import dataclasses
import math

import pytest
import torch
from torch import nn

import onelip
from onelip import bounds
from onelip.bounds import METHODS, Best, BoundMethod, ECLipsE, LipLT, LipSDP, Local, Product
from onelip.errors import NotApplicableError, UsageError
from onelip.layers import UnitNormLinear
from onelip.reading import read
from onelip.testing.layers import jacobian_norm

EVERYWHERE = {name: method for name, method in METHODS.items() if name not in ("local", "best")}
EVERYWHERE["best"] = Best(seconds=3)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = [nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*parts).double().eval()


def test_methods_are_called_by_their_names() -> None:
    names = "product eclipse-fast eclipse lipsdp exact liplt lipsdp-layer local best"
    assert " ".join(METHODS) == names
    for name, method in METHODS.items():
        assert method.name == name == bounds.bound_method(name).name
        assert name in (method.title.lower(), method.title.lower().replace("-neuron", "")) or (
            method.title == "product of norms"
        )
        assert dataclasses.replace(method) == method
        assert hash(method) == hash(dataclasses.replace(method))
    assert [m.name for m in (ECLipsE(fast=True), LipSDP("layer"))] == [
        "eclipse-fast",
        "lipsdp-layer",
    ]


@pytest.mark.parametrize("method", EVERYWHERE.values(), ids=EVERYWHERE)
def test_a_bound_of_a_chain_a_program_and_a_module(method: BoundMethod) -> None:
    model = network()
    chain, program = read(model, (4,)), torch.export.export(model, (torch.rand(1, 4).double(),))
    found = [method.bound(n, s) for n, s in ((chain, None), (program, None), (model, (4,)))]
    steepest = max(float(jacobian_norm(model, x)) for x in torch.randn(50, 4).double())
    for bound in found:
        assert (bound.shape, bound.dtype) == ((), torch.float64)
        assert float(bound) >= steepest
        assert float(bound) == pytest.approx(float(found[0]), rel=1e-5)
    by_name = method if method.name == "best" else method.name
    assert torch.allclose(onelip.lipschitz_bound(model, (4,), method=by_name), found[2], rtol=1e-5)


@pytest.mark.parametrize("method", EVERYWHERE.values(), ids=EVERYWHERE)
def test_logits_are_bounded_one_by_one_and_pair_by_pair(method: BoundMethod) -> None:
    model = network(1)
    x = torch.randn(200, 4, dtype=torch.float64)
    jacobians = torch.func.vmap(torch.func.jacrev(model))(x)
    product = Product().logit_bounds(read(model, (4,)))
    for found in (method.logit_bounds(read(model, (4,))), method.logit_bounds(model, (4,))):
        assert (found.per_class >= jacobians.norm(dim=2).amax(0)).all()
        pairs = (jacobians[:, :, None] - jacobians[:, None]).norm(dim=3).amax(0)
        assert (found.pairwise >= pairs * (1 - 1e-12)).all()
        assert torch.equal(found.pairwise, found.pairwise.mT)
        assert not found.pairwise.diagonal().any()
        assert (found.pairwise <= product.pairwise * (1 + 1e-9)).all()
        assert (found.pairwise <= found.network * math.sqrt(2) * (1 + 1e-9)).all()
        assert len(found.layers) in (2, 5)


def test_better_constants_of_the_network_reach_the_pairs() -> None:
    """LipSDP is tight enough here that the root of 2 times it counts for some pairs."""
    model = nn.Sequential(*network()[:4], nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 3))
    model[-1].weight.data = torch.eye(3)
    chain = read(model.double(), (4,))
    product, found = Product().logit_bounds(chain), LipSDP().logit_bounds(chain)
    assert float(found.network) < 0.9 * float(product.network)
    assert float(found.pairwise[0, 1]) < 0.95 * float(product.pairwise[0, 1])
    assert float(found.pairwise[0, 1]) == pytest.approx(math.sqrt(2) * float(found.network))


def test_best_has_the_pairs_of_liplt() -> None:
    chain = read(network(2), (4,))
    name, best = Best(seconds=5).proved_logits(chain)
    assert name in METHODS
    assert (best.pairwise <= LipLT().logit_bounds(chain).pairwise * (1 + 1e-9)).all()
    assert best.network <= LipSDP().bound(chain) * (1 + 1e-9)


def test_the_product_of_images_of_any_size() -> None:
    """It needs no shape; that of one size is no larger."""
    torch.manual_seed(0)
    conv = [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1)]
    model = nn.Sequential(*conv).double().eval()
    anywhere, here = Product().bound(model), Product(any_size=False).bound(model, (1, 5, 5))
    assert torch.equal(anywhere, onelip.lipschitz_bound(model))
    assert here < anywhere
    assert torch.equal(here, Product().bound(read(model, (1, 5, 5))))
    with pytest.raises(UsageError, match="shape of one input"):
        Product(any_size=False).bound(model)


@pytest.mark.parametrize("head", [nn.Linear(6, 3), UnitNormLinear(6, 3), None])
def test_logits_of_the_product_of_images_of_any_size(head: nn.Module | None) -> None:
    torch.manual_seed(0)
    body = [nn.Linear(4, 6), nn.Tanh()]
    model = nn.Sequential(*body, nn.Linear(6, 3) if head is None else head)
    model = (nn.Sequential(*model, nn.Identity()) if head is None else model).double().eval()
    found = Product().logit_bounds(model, (4,))
    jacobians = torch.func.vmap(torch.func.jacrev(model))(torch.randn(99, 4).double())
    assert (found.per_class >= jacobians.norm(dim=2).amax(0)).all()
    pairs = (jacobians[:, :, None] - jacobians[:, None]).norm(dim=3).amax(0)
    assert (found.pairwise >= pairs).all()
    assert float(found.network) == pytest.approx(float(onelip.lipschitz_bound(model)))


def test_less_time_is_no_worse_than_no_bound() -> None:
    chain = read(network(3), (4,))
    for method in (Product, LipLT):
        quick = method(seconds=5).logit_bounds(chain)
        whole = method().logit_bounds(chain)
        assert (quick.pairwise <= whole.pairwise * (1 + 1e-9)).all()
    with pytest.raises(NotApplicableError, match="give more --seconds"):
        LipLT(seconds=0).logit_bounds(chain)


def test_some_methods_have_an_estimate() -> None:
    chain = read(network().float(), (4,))
    assert bounds.estimated() == ("product", "liplt")
    for name in bounds.estimated():
        below, above = METHODS[name].estimate(chain)(chain), METHODS[name].logit_bounds(chain)
        assert (below <= above.pairwise * (1 + 1e-5)).all()
        assert below.requires_grad
    for name in set(METHODS) - set(bounds.estimated()):
        with pytest.raises(NotApplicableError, match="'product' or 'liplt'"):
            METHODS[name].estimate(chain)


def test_methods_that_cannot() -> None:
    chain = read(network(), (4,))
    for question in (Local().bound, Local().logit_bounds):
        with pytest.raises(NotApplicableError, match="around"):
            question(chain)
    with pytest.raises(UsageError, match="known: product, eclipse-fast, eclipse"):
        onelip.lipschitz_bound(chain, method="lipschitz")
    with pytest.raises(UsageError, match="proves nothing"):
        LipSDP("network")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="finite length"):
        Local((0.1, -1.0))
    for name in ("local", "best"):
        assert METHODS[name].multiplications(chain) == math.inf
    assert {t.method for t in Best(3).report(chain).tried} == set(METHODS) - {"local", "best"}


class Doubled(BoundMethod):
    """A method from outside, which proves little."""

    name = "doubled"

    def prove(self, chain: onelip.bounds.Network) -> torch.Tensor:
        return 2 * Product().bound(chain)


def test_a_method_from_outside_needs_a_name_and_a_proof() -> None:
    model, x = network().float(), torch.rand(9, 4)
    assert float(Doubled().bound(model, (4,))) > float(Product().bound(read(model, (4,))))
    certificate = onelip.certify(model, x, method=Doubled())
    blocks = onelip.certify(model, x, method=Product(any_size=False))
    assert certificate.method == "doubled"
    assert torch.equal(certificate.radius, blocks.radius)  # the pairs of the product are smaller
    with pytest.raises(TypeError, match="abstract"):
        BoundMethod()  # type: ignore[abstract]


def _old() -> dict[str, tuple[tuple, dict, object]]:
    chain = read(network(), (4,))
    x = torch.rand(3, 4)
    of_liplt, of_product = LipLT().logit_bounds(chain), Product().logit_bounds(chain)
    plain = ((chain,), {})
    at = ((chain, x, 0.1), {})
    return {
        "naive": (*plain, Product().bound(chain)),
        "naive_constants": (*plain, of_product),
        "naive_per_class": (*plain, of_product.per_class),
        "naive_pairwise": (*plain, of_product.pairwise),
        "liplt": ((chain,), {"refinement": "sll", "work": 1e9}, LipLT(1e9, "sll").bound(chain)),
        "liplt_constants": (*plain, of_liplt),
        "liplt_per_class": (*plain, of_liplt.per_class),
        "liplt_pairwise": (*plain, of_liplt.pairwise),
        "eclipse": (*plain, ECLipsE().bound(chain)),
        "eclipse_fast": (*plain, ECLipsE(fast=True).bound(chain)),
        "lipsdp": ((chain, "layer"), {}, LipSDP("layer").bound(chain)),
        "local": (*at, Local().around(chain, x, 0.1)),
        "local_pairwise": (*at, Local().pairwise(chain, x, 0.1)),
        "local_radius": ((chain, x, [0.1, 1]), {}, Local((0.1, 1)).radius(chain, x)),
        "best": ((chain,), {"seconds": 9}, Best(9).report(chain).bound),
    }


def test_old_names_give_the_same_numbers_and_warn() -> None:
    from onelip.bounds._deprecated import RENAMED

    old = _old()
    assert set(old) | {"Constants"} == set(RENAMED)
    for name, (args, options, expected) in old.items():
        with pytest.warns(DeprecationWarning, match=f"bounds.{name} is onelip.bounds.") as caught:
            found = getattr(onelip.bounds, name)(*args, **options)
        assert caught[0].filename == __file__
        found = getattr(found, "bound", found)
        pairs = (
            [(found, expected)]
            if isinstance(expected, torch.Tensor)
            else zip(found, expected, strict=True)
        )
        for pair in pairs:
            one, other = (torch.stack(p) if isinstance(p, tuple) else p for p in pair)
            assert torch.allclose(one, other, rtol=1e-6 if name == "best" else 0, atol=0), name
    with pytest.warns(DeprecationWarning, match="LogitBounds"):
        assert onelip.bounds.Constants is onelip.bounds.LogitBounds
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        onelip.bounds.nothing  # noqa: B018
