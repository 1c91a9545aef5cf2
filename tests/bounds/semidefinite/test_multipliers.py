"""Multipliers, good and bad, never prove too little."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from onelip.bounds.products.matrix import written_out
from onelip.bounds.semidefinite import multipliers
from onelip.bounds.semidefinite.forms import GroupMultipliers, SlopeMultipliers, scaled
from onelip.bounds.semidefinite.layerwise import fast, forward, strictly
from onelip.bounds.semidefinite.matrices import matrices
from onelip.bounds.semidefinite.multipliers import proved
from onelip.chains import (
    Block,
    Chain,
    Convolution,
    Dense,
    Elementwise,
    Opaque,
    Reshape,
    Scale,
    Sum,
    composed,
    identity,
)
from onelip.errors import NonFiniteError, NotApplicableError
from tests.networks import (
    SHAPES,
    chain_of,
    published_network,
    random_weights,
    sorting,
    sorting_chain,
)
from tests.oracles import exact_max_min, exact_relu, materialised, sampled, sigma_max


def noisy(single, amount: float):
    """Multipliers of somebody who made mistakes."""
    if isinstance(single, SlopeMultipliers):
        numbers = single.weights * torch.empty_like(single.weights).uniform_(1 - amount, 1 + amount)
        dropped = torch.rand_like(numbers) < 0.1
        return SlopeMultipliers(torch.where(dropped, 0.0, numbers))
    cross = single.cross + amount * torch.randn_like(single.cross) * single.weights.mean()
    before = single.before + amount * torch.randn_like(single.cross) * single.weights.mean()
    return GroupMultipliers(single.weights * (1 + amount), cross, before)


@pytest.mark.parametrize("sizes", SHAPES)
def test_a_thousand_relu_networks_and_bad_multipliers(sizes) -> None:
    gained = 0
    for _ in range(80):
        weights = random_weights(*sizes)
        network, truth = matrices(chain_of(weights)), exact_relu(weights)
        good, _ = forward(network, fast)
        for trial in (
            good,
            [noisy(m, 0.3) for m in good],
            [SlopeMultipliers(10 * torch.randn(sizes[1], dtype=torch.float64))],
        ):
            bound = float(proved(network, trial))
            assert truth <= bound <= float(network.product)
            gained += bound < 0.999 * float(network.product)
    assert gained > 60


@pytest.mark.parametrize("sizes", [(2, 2, 1), (4, 4, 2)])
def test_networks_of_sorted_pairs(sizes) -> None:
    gained = 0
    for _ in range(80):
        weights = random_weights(*sizes)
        network, truth = matrices(sorting_chain(weights)), exact_max_min(weights)
        good, _ = forward(network, fast)
        for trial in (good, [noisy(m, 0.1) for m in good]):
            bound = float(proved(network, trial))
            assert truth <= bound <= float(network.product)
            gained += bound < 0.999 * float(network.product)
    assert gained > 30


DEEP = {
    "relu": lambda: chain_of(random_weights(3, 5, 4, 2)),
    "gelu": lambda: chain_of(random_weights(3, 5, 4, 2), nn.GELU()),
    "leaky": lambda: chain_of(random_weights(4, 3, 6, 3), nn.LeakyReLU(0.3)),
    "absolute": lambda: chain_of(random_weights(4, 3, 6, 3), nn.LeakyReLU(-1.0)),
    "sigmoid": lambda: chain_of(random_weights(2, 7, 7, 7, 1), nn.Sigmoid()),
    "identity": lambda: chain_of(random_weights(4, 3, 5, 3), nn.Identity()),
    "pairs": lambda: sorting_chain(random_weights(3, 6, 4, 2)),
    "triples": lambda: sorting_chain(random_weights(5, 6, 9, 2), 3),
    "all": lambda: sorting_chain(random_weights(5, 4, 4, 2), 4),
}


@pytest.mark.parametrize("name", DEEP)
def test_deeper_networks(name: str) -> None:
    chain = DEEP[name]()
    network, truth = matrices(chain), sampled(chain)
    good = forward(network, fast)[0]
    for found in (good, strictly(network)[0], [noisy(m, 0.1) for m in good]):
        assert truth <= float(proved(network, found)) <= float(network.product)
    if name not in ("absolute", "all"):  # they may know no more than the norms
        assert float(proved(network, good)) < 0.99 * float(network.product)


def test_linear_networks_are_bounded_tightly() -> None:
    weights = random_weights(4, 3, 5, 3)
    chain = chain_of(weights, nn.Identity())
    truth = sigma_max(weights[2] @ weights[1] @ weights[0])
    found, _ = forward(matrices(chain), fast)
    assert truth <= float(proved(matrices(chain), found)) <= truth * (1 + 1e-5)


def test_slopes_of_each_entry() -> None:
    for _ in range(20):
        weights, low = random_weights(4, 3, 2), torch.rand(3).double() - 0.5
        module = nn.PReLU(3).double()
        module.weight.data = low
        chain = Chain(
            (Block(Dense(weights[0]), Elementwise(module, low, torch.ones(3).double())),),
            Dense(weights[1]),
        )
        truth = max(
            sigma_max((weights[1] * torch.where(torch.tensor(pattern), 1.0, low)) @ weights[0])
            for pattern in itertools.product((False, True), repeat=3)
        )
        network = matrices(chain)
        bound = float(proved(network, forward(network, fast)[0]))
        assert truth <= bound < float(network.product)


def test_what_cannot_be_trusted_counts_for_nothing() -> None:
    network = matrices(chain_of(random_weights(3, 4, 2)))
    for number in (-1.0, 0.0, math.nan, math.inf, -math.inf, 1e300, 1e-300):
        weights = torch.full((4,), number, dtype=torch.float64)
        assert proved(network, [SlopeMultipliers(weights)]) == network.product
    sorted_network = matrices(sorting_chain(random_weights(3, 4, 2)))
    numbers = torch.full((2, 2), math.nan, dtype=torch.float64)
    found = proved(sorted_network, [GroupMultipliers(numbers[0], numbers, numbers)])
    assert found == sorted_network.product


def test_a_negative_weight_counts_as_none() -> None:
    network = matrices(chain_of(random_weights(3, 2, 1), nn.LeakyReLU(0.5)))
    weights = [torch.tensor(numbers).double() for numbers in ([40.0, -4.0], [40.0, 0.0])]
    bounds = [proved(network, [SlopeMultipliers(numbers)]) for numbers in weights]
    assert bounds[0] == bounds[1]


def test_the_proof_measures_what_it_relies_on(monkeypatch) -> None:
    """A factorisation that goes wrong makes the bound larger, never smaller."""
    weights = random_weights(4, 3, 3)
    network, truth = matrices(chain_of(weights)), exact_relu(weights)
    found = forward(network, fast)[0]
    good, cholesky = float(proved(network, found)), multipliers._cholesky
    for wrong in (0.999, 1.001, 1.1, 0.0):
        monkeypatch.setattr(multipliers, "_cholesky", lambda m, by=wrong: by * cholesky(m))
        assert truth <= good <= float(proved(network, found)) <= float(network.product)


def test_a_guess_that_is_too_low_is_made_up_for(monkeypatch) -> None:
    weights = random_weights(4, 3, 3)
    network, truth = matrices(chain_of(weights)), exact_relu(weights)
    found, guess = forward(network, fast)[0], multipliers._guess
    for by in (0.0, 0.1, 0.9, 0.999999, 1.5):
        monkeypatch.setattr(multipliers, "_guess", lambda *a, by=by: by * guess(*a))
        assert truth <= float(proved(network, found)) <= float(network.product)


def test_free_multipliers_are_taken_as_symmetric() -> None:
    weights = random_weights(4, 4, 2)
    network, truth = matrices(sorting_chain(weights)), exact_max_min(weights)
    good = forward(network, fast)[0][0]
    for _ in range(20):
        upper = torch.randn(2, 2, dtype=torch.float64).triu(1)
        bad = GroupMultipliers(good.weights, good.cross + upper, good.before + upper)
        assert truth <= float(proved(network, [bad]))


def test_multipliers_of_another_network() -> None:
    network = matrices(chain_of(random_weights(3, 4, 2)))
    with pytest.raises(ValueError, match="4 multipliers are wanted"):
        proved(network, [SlopeMultipliers(torch.ones(3))])
    with pytest.raises(ValueError, match="GroupMultipliers do not fit"):
        proved(network, [GroupMultipliers(torch.ones(2), torch.ones(2, 2), torch.ones(2, 2))])
    sorted_network = matrices(sorting_chain(random_weights(3, 4, 2)))
    with pytest.raises(ValueError, match="matrix of 2 groups"):
        proved(sorted_network, [GroupMultipliers(torch.ones(2), torch.ones(3, 3), torch.ones(2))])
    with pytest.raises(ValueError, match="shorter"):
        proved(network, [])


def test_no_hidden_layer_and_no_weight() -> None:
    weight = torch.randn(3, 4, dtype=torch.float64)
    bound = float(proved(matrices(Chain((), Dense(weight))), []))
    assert sigma_max(weight) <= bound <= sigma_max(weight) * (1 + 1e-8)
    silent = matrices(chain_of([torch.zeros(3, 4).double(), torch.randn(2, 3).double()]))
    assert proved(silent, [SlopeMultipliers(torch.ones(3))]) == 0


@pytest.mark.parametrize("scale", [1e-200, 1e-300, 1e-30, 1e30, 1e150])
def test_sizes_of_weights_do_not_matter(scale: float) -> None:
    weights = random_weights(4, 5, 3)
    network = matrices(chain_of(weights))
    other = matrices(chain_of([scale * weights[0], weights[1]]))
    found = [forward(n, fast)[0] for n in (network, other)]
    bound, moved = (float(proved(n, f)) for n, f in zip((network, other), found, strict=True))
    assert moved == pytest.approx(scale * bound, rel=1e-6)
    assert scale * exact_relu(weights) <= moved


def test_multipliers_hold_for_any_scale_of_theirs_nearby() -> None:
    network = matrices(published_network(5, 20))
    good, level = forward(network, fast)
    bounds = [float(proved(network, [scaled(m, s) for m in good])) for s in (1.0, 1 + 1e-6)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-4)
    assert bounds[0] <= float(level.sqrt() * torch.stack(network.factors).prod()) * (1 + 1e-8)


def test_networks_that_are_not_plain_or_too_wide() -> None:
    dense, relu = Dense(torch.eye(3)), Elementwise.of(nn.ReLU())
    skip = Chain((Block(dense, relu, dense, identity((3,))),), dense)
    with pytest.raises(NotApplicableError, match="skip"):
        matrices(skip)
    opaque = Chain((Block(dense, Opaque(nn.Softmax(1), 1.0, (3,)), name="Softmax"),), dense)
    with pytest.raises(NotApplicableError, match="Softmax"):
        matrices(opaque)
    with pytest.raises(NotApplicableError, match="5000 numbers"):
        matrices(Chain((), Dense(torch.zeros(1, 5000))))
    with pytest.raises(NonFiniteError, match="product of the layers' constants is inf"):
        matrices(chain_of([1e200 * torch.eye(2).double()] * 2))
    with pytest.raises(NonFiniteError, match="weight is infinite or NaN"):
        matrices(Chain((), Dense(torch.tensor([[math.nan]]))))


def _weight(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


MAPS = {
    "dense": (Dense(_weight(5, 6).float()), True),
    "reshaped": (composed([Reshape((2, 3), (6,)), Dense(_weight(5, 6))]), True),
    "convolution": (Convolution((2, 5, 4), _weight(3, 2, 3, 3), padding=(1, 1)), False),
    "normalised": (composed([Scale((6,), _weight(6)), Dense(_weight(5, 6))]), False),
    "twice": (composed([Dense(_weight(5, 6)), Dense(_weight(4, 5))]), False),
    "sum": (Sum((Dense(_weight(5, 6)), composed([Dense(_weight(5, 6)), identity((5,))]))), False),
}


@pytest.mark.parametrize(("linear", "exactly"), MAPS.values(), ids=MAPS.keys())
def test_maps_written_out(linear, exactly: bool) -> None:
    matrix, error = written_out(linear.exact())
    expected = materialised(linear.exact(), linear.inputs)
    assert sigma_max(matrix - expected) <= 1e-13
    assert (error == 0) == exactly
    assert float(error) < 1e-11


def test_a_small_convolutional_network() -> None:
    relu = Elementwise.of(nn.ReLU())
    conv = Convolution((1, 4, 4), _weight(3, 1, 3, 3), _weight(3), padding=(1, 1))
    strided = Convolution((3, 4, 4), _weight(4, 3, 2, 2), _weight(4), stride=(2, 2))
    last = composed([Reshape((4, 2, 2), (16,)), Dense(_weight(3, 16), _weight(3))])
    for kind in (relu, sorting()):
        chain = Chain((Block(conv, relu), Block(strided, kind)), last)
        network = matrices(chain)
        bound = float(proved(network, forward(network, fast)[0]))
        assert sampled(chain, 20) <= bound < 0.9 * float(network.product)
