"""What all layers with a constrained weight share: precision, export, images, weights held once."""

import copy
import io
import itertools
import math
from collections import Counter
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import onelip
from onelip import layers, lipschitz_bound
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.layers import FixedConv2d, bjorck, cholesky_qr, computed_once
from onelip.reading import read
from tests.oracles import matrix_of, sigma_max

CONVS = [layers.AOCConv2d, layers.BCOPConv2d, layers.RKOConv2d]
FAMILIES = {
    "AOCConv2d": (partial(layers.AOCConv2d, 2, 3, 3), (2, 4, 4)),
    "AOCConv2d-stride": (partial(layers.AOCConv2d, 2, 3, 3, stride=2), (2, 4, 4)),
    "AOCConv1d": (partial(layers.AOCConv1d, 2, 3, 4, stride=2), (2, 6)),
    "AOCConvTranspose2d": (partial(layers.AOCConvTranspose2d, 4, 2, 3, 2, None), (4, 2, 3)),
    "BCOPConv2d": (partial(layers.BCOPConv2d, 3, 2, 2), (3, 3, 3)),
    "BCOPConv2d-bjorck": (partial(layers.BCOPConv2d, 3, 4, 3, orthogonalise=bjorck), (3, 3, 3)),
    "RKOConv2d": (partial(layers.RKOConv2d, 4, 2, 3, groups=2), (4, 3, 3)),
    "BjorckLinear": (partial(layers.BjorckLinear, 4, 6), (4,)),
    "CholeskyLinear": (partial(layers.CholeskyLinear, 6, 4), (6,)),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    """How to build a layer with other weights than it starts from, and the shape of its input."""
    build, shape = FAMILIES[request.param]

    def redrawn() -> nn.Module:
        layer = build()
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        return layer

    return redrawn, shape


# Weights


def test_export_computes_in_double_and_rounds_once(family):
    build, shape = family
    layer = build()
    exported = onelip.export(layer)
    held = [m.weight for m in exported.modules() if isinstance(getattr(m, "weight", None), Tensor)]
    assert len(held) == 1
    assert isinstance(held[0], nn.Parameter)
    assert held[0].dtype == torch.float32
    assert torch.equal(held[0], copy.deepcopy(layer).double().weight.float())
    x = torch.randn(2, *shape)
    assert torch.allclose(exported(x), layer(x), atol=1e-4)
    biases = [m.bias for m in exported.modules() if isinstance(getattr(m, "bias", None), Tensor)]
    assert torch.equal(biases[0], layer.bias)
    with torch.no_grad():
        layer.bias.add_(1)  # nothing is shared
    assert not torch.equal(biases[0], layer.bias)


def test_the_bound_is_above_the_float32_weights(family):
    build, shape = family
    layer = build()
    wide = copy.deepcopy(onelip.export(layer)).double()  # the same numbers
    assert sigma_max(matrix_of(wide, shape)) <= float(onelip.lipschitz_bound(wide)) * (1 + 1e-13)
    for other in (layer, onelip.export(layer)):
        assert float(onelip.lipschitz_bound(other)) <= 1 + 5e-4


def test_export_has_the_weights_of_a_state_dict(family):
    build, shape = family
    layer, other = build(), build()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, *shape)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(onelip.export(other)(x), onelip.export(layer)(x))


def test_autocast_does_not_reach_the_weight(family):
    build, shape = family
    layer, x = build(), torch.randn(2, *shape)
    alone = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.weight, alone)
        assert layer(x).dtype == torch.bfloat16
        with computed_once(layer):
            assert layer.weight.dtype == torch.float32
            assert torch.allclose(layer.weight, alone, atol=1e-6)
            layer(x).float().square().sum().backward()
        bound = onelip.lipschitz_bound(layer)
    assert float(bound) == float(onelip.lipschitz_bound(layer))
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_half_precision_is_measured(each, family):
    """LAPACK has no Cholesky factorisation of half numbers: that is done in float32."""
    for dtype in each([torch.bfloat16, torch.float16]):
        build, shape = family
        layer = build().to(dtype)
        y = layer(torch.randn(2, *shape).to(dtype))
        assert y.dtype == layer.weight.dtype == dtype
        fixed = copy.deepcopy(onelip.export(layer)).double()
        holder = next(
            m for m in fixed.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        )
        holder.weight.data = layer.weight.detach().double()
        norm = sigma_max(matrix_of(fixed, shape))
        assert norm <= float(onelip.lipschitz_bound(layer)) * (1 + 1e-13)
        exported = onelip.export(layer)  # computed in double, then rounded
        norm = sigma_max(matrix_of(copy.deepcopy(exported).double(), shape))
        assert norm <= float(onelip.lipschitz_bound(exported)) * (1 + 1e-13)
        assert float(onelip.lipschitz_bound(exported)) <= 1.05


def test_zero_weights(family):
    build, shape = family
    layer = build()
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    assert bool(layer(torch.randn(2, *shape)).isfinite().all())
    assert 0 <= float(onelip.lipschitz_bound(layer)) <= 1 + 1e-6


def test_broken_weights_have_no_bound(each, family):
    for value in each([math.nan, math.inf]):
        layer = family[0]()
        for parameter in layer.parameters():
            parameter.data.fill_(value)
        with pytest.raises(NonFiniteError):
            onelip.lipschitz_bound(layer)


# Computed once


def mixed() -> nn.Sequential:
    """Several families, shapes that occur twice, and one that takes power steps."""
    model = nn.Sequential(
        layers.BCOPConv2d(2, 4, 3),
        layers.MaxMin(),
        layers.AOCConv2d(4, 4, 3),
        layers.RKOConv2d(4, 4, 3, groups=2),
        layers.BCOPConv2d(4, 4, 3),
        layers.AOCConv2d(4, 8, 4, stride=2),
        layers.ChannelMaxPool(),
        layers.BCOPConv2d(4, 4, 3, orthogonalise=bjorck),
        layers.ConvexPotentialConv2d(4, 5, image_size=2),
        layers.AOCConvTranspose2d(4, 2, 3, 2, padding=None),
        nn.Flatten(),
        layers.BjorckLinear(32, 8),
        layers.CholeskyLinear(8, 8),
        nn.Unflatten(1, (2, 4)),
        layers.AOCConv1d(2, 3, 3),
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.double()


def outputs_and_gradients(model: nn.Module, x: Tensor, context) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    with context:
        y = model(x)
        y.square().sum().backward()
    return y.detach(), [parameter.grad.clone() for parameter in model.parameters()]


def assert_same(found, expected) -> None:
    assert torch.allclose(found[0], expected[0], atol=1e-12)
    for one, other in zip(found[1], expected[1], strict=True):
        assert torch.allclose(one, other, atol=1e-10, rtol=1e-9)


def test_the_same_outputs_and_gradients_as_without():
    model, x = mixed(), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    twin = copy.deepcopy(model)
    expected = outputs_and_gradients(twin, x, nullcontext())
    assert_same(outputs_and_gradients(model, x, computed_once(model)), expected)
    for value, other in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.allclose(value, other, atol=1e-12)  # the power step was taken once


def test_a_model_of_mixed_types_and_frozen_layers():
    """Types are not mixed in a batch, and a frozen layer gets no gradient."""
    model = nn.Sequential(layers.CholeskyLinear(4, 4), layers.CholeskyLinear(4, 4))
    model[1].double()
    model[0].requires_grad_(False)
    with computed_once(model):
        assert model[0].weight.dtype == torch.float32
        assert model[1].weight.dtype == torch.float64
        model[1](model[0](torch.randn(2, 4)).double()).sum().backward()
    assert model[0].raw_weight.grad is None
    assert model[1].raw_weight.grad is not None


class Counting:
    """Cholesky's QR, with a record of the batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, matrices: Tensor) -> Tensor:
        self.batches.append(tuple(matrices.shape))
        return cholesky_qr(matrices)


def test_weights_are_computed_once_and_together():
    count = Counting()
    model = nn.Sequential(
        *(layers.BCOPConv2d(4, 4, 3, orthogonalise=count) for _ in range(3)),
        layers.AOCConv2d(4, 4, 2, orthogonalise=count),
    )
    x = torch.randn(2, 4, 5, 5)
    with computed_once(model):
        for _ in range(3):
            model(x)
        onelip.lipschitz_bound(model)
    # matrices of 4 x 4 of all four layers, and all of their bases
    assert Counter(count.batches) == {(4, 4, 4): 1, (3 * 4 + 2, 4, 2): 1}
    count.batches.clear()
    model(x)
    assert len(count.batches) == 8


def test_a_shared_layer_is_computed_once_and_its_gradients_add_up():
    count = Counting()
    shared = layers.BCOPConv2d(3, 3, 3, orthogonalise=count).double()
    model = nn.Sequential(shared, layers.MaxMin(), nn.Sequential(shared))
    model[1] = nn.ReLU()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = outputs_and_gradients(model, x, nullcontext())
    count.batches.clear()
    found = outputs_and_gradients(model, x, computed_once(model))
    assert len(count.batches) == 2
    assert_same(found, expected)


def test_eval_mode_without_gradients():
    count = Counting()
    model = nn.Sequential(layers.BCOPConv2d(2, 2, 3, orthogonalise=count)).eval()
    x = torch.randn(4, 2, 5, 5)
    with torch.no_grad(), computed_once(model):
        found = [model(image[None]) for image in x]
    assert len(count.batches) == 2
    assert torch.allclose(torch.cat(found), model(x), atol=1e-6)


def test_weights_that_change_inside_take_effect_at_the_end(family):
    build, shape = family
    layer, x = build(), torch.randn(2, *shape)
    before = layer(x)
    with torch.no_grad(), computed_once(layer):
        for parameter in layer.parameters():
            if parameter is not layer.bias:
                parameter.normal_()
        assert torch.allclose(layer(x), before, atol=1e-5)
        bound = onelip.lipschitz_bound(layer)
    assert not torch.allclose(layer(x), before, atol=1e-2)
    assert float(bound) <= 1 + 1e-4


@pytest.mark.parametrize("place", ["inside", "in the computation"])
def test_nothing_is_held_after_an_error(place):
    def broken(matrices: Tensor) -> Tensor:
        raise ArithmeticError("stop")

    good, bad = layers.BCOPConv2d(2, 2, 3), layers.RKOConv2d(2, 2, 3)
    alone = layers.ConvexPotentialLinear(3, 3)
    model = nn.Sequential(good, bad, alone)
    if place == "in the computation":
        bad.orthogonalise = broken
    with pytest.raises(ArithmeticError, match="stop"), computed_once(model):
        raise ArithmeticError("stop")
    before = good.weight
    nn.init.normal_(good.raw_matrix)
    assert not torch.allclose(good.weight, before, atol=1e-2)
    assert good.weight is not good.weight


def test_nested_contexts_give_the_same_outputs():
    model, x = mixed().eval(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    expected = outputs_and_gradients(model, x, nullcontext())
    model.zero_grad()
    with computed_once(model):
        with computed_once(model[0]):
            y = model(x)
        assert torch.allclose(y, model(x), atol=1e-12)
        y.square().sum().backward()
    assert_same((y, [parameter.grad for parameter in model.parameters()]), expected)


# An inner context must not end what the outer one began.
def test_the_outer_context_holds_its_weights_beyond_an_inner_one():
    count = Counting()
    layer = layers.BCOPConv2d(2, 2, 3, orthogonalise=count)
    with computed_once(layer):
        held = layer.weight
        with computed_once(layer):
            pass
        assert layer.weight is held


def test_copies_and_state_dicts_after_the_context(family):
    build, shape = family
    layer, fresh = build(), build()
    names = set(layer.state_dict())
    with computed_once(layer):
        assert set(layer.state_dict()) == names
        assert {name for name, _ in layer.named_parameters()} <= names
        fresh.load_state_dict(layer.state_dict())
    x = torch.randn(2, *shape)
    assert set(layer.state_dict()) == names
    assert torch.allclose(fresh(x), layer(x), atol=1e-6)
    twin = copy.deepcopy(layer)
    for parameter in twin.parameters():
        nn.init.normal_(parameter)
    assert not torch.allclose(twin(x), layer(x), atol=1e-2)


# A copy would hold the weight for good, as no context ends for it.
def test_a_copy_made_inside_follows_its_own_parameters():
    layer, x = layers.BCOPConv2d(2, 2, 3), torch.randn(2, 2, 4, 4)
    with torch.no_grad(), computed_once(layer):
        twin = copy.deepcopy(layer)
    before = twin(x)
    nn.init.normal_(twin.raw_matrix)
    assert not torch.allclose(twin(x), before, atol=1e-2)


# A weight with a gradient cannot be copied: averages of weights and exports are made inside too.
@pytest.mark.parametrize("action", [copy.deepcopy, onelip.export])
def test_copies_and_exports_inside_a_training_step(action):
    layer, x = layers.BCOPConv2d(2, 2, 3), torch.randn(2, 2, 4, 4)
    with computed_once(layer):
        other = action(layer)
    assert torch.allclose(other(x), layer(x), atol=1e-5)


# Paddings


def test_paddings_are_those_of_torch(each):
    for family, mode, padding, (kernel_size, dilation) in each(
        itertools.product(
            CONVS, ["circular", "zeros"], [0, 1, 3, "same", "valid", None], [(3, 1), (2, 1), (3, 2)]
        )
    ):
        layer = family(2, 3, kernel_size, padding=padding, padding_mode=mode, dilation=dilation)
        nn.init.normal_(layer.double().bias)
        plain = nn.Conv2d(
            2,
            3,
            kernel_size,
            padding="same" if padding is None else padding,
            padding_mode=mode,
            dilation=dilation,
        ).double()
        plain.weight.data, plain.bias.data = layer.weight.data, layer.bias.data
        x = torch.randn(2, 2, 5, 6, dtype=torch.float64)
        assert torch.allclose(layer(x), plain(x), atol=1e-13)
        norm = sigma_max(matrix_of(layer, (2, 5, 6)))
        assert norm <= float(onelip.lipschitz_bound(layer))
        assert norm <= float(onelip.lipschitz_bound(plain))
        layer.image_size = (5, 6)
        assert norm * (1 - 1e-14) <= float(onelip.lipschitz_bound(layer)) <= norm * (1 + 1e-8)


# A word that forward and bound understand differently is not sound: the norm was 7.7 where the
# bound said 6.1. nn.Conv2d refuses such words.
@pytest.mark.parametrize("padding", ["Same", "full", (0, 0)], ids=str)
def test_paddings_that_torch_does_not_know(padding):
    long = partial(torch.mul, 3.0)
    try:
        layer = layers.RKOConv2d(2, 2, 3, padding=padding, image_size=4, orthogonalise=long)
    except (ValueError, TypeError):
        return
    nn.init.normal_(layer.double().raw_weight)
    assert sigma_max(matrix_of(layer, (2, 4, 4))) <= float(onelip.lipschitz_bound(layer))


# torch refuses the convolution that it would be exported to.
def test_same_padding_with_a_stride():
    try:
        layer = layers.AOCConv2d(2, 3, 3, stride=2, padding="same")
    except ValueError:
        return
    x = torch.randn(1, 2, 4, 4)
    assert torch.allclose(onelip.export(layer)(x), layer(x), atol=1e-5)


# Images


@pytest.mark.parametrize("family", CONVS)
def test_a_layer_that_knows_its_images_takes_no_others(family):
    layer = family(2, 3, 3, image_size=(4, 6))
    exported = onelip.export(layer)
    for part in (layer, exported):
        assert part(torch.zeros(1, 2, 4, 6)).shape == (1, 3, 4, 6)
        with pytest.raises(ValueError, match=r"proved for images of \(4, 6\), got \(6, 4\)"):
            part(torch.zeros(1, 2, 6, 4))
    assert type(exported) is FixedConv2d
    assert exported.image_size == (4, 6)


@pytest.mark.parametrize("family", CONVS)
def test_what_is_proved_for_every_image_is_exported_plainly(family):
    for options in ({}, {"padding_mode": "zeros"}, {"padding_mode": "zeros", "stride": 3}):
        layer = family(2, 3, 3, **options)
        exported = onelip.export(layer)
        assert type(exported) is nn.Conv2d
        assert float(onelip.lipschitz_bound(exported)) <= 1 + 1e-5
    assert type(onelip.export(family(2, 3, 3, stride=3))) is FixedConv2d


def _random_conv(**options) -> nn.Conv2d:
    return nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", **options).double()


def test_whole_strides_are_worth_knowing():
    """The same convolution: bounded for every image, for those it divides, and for one."""
    conv = _random_conv(stride=2)
    every = float(onelip.lipschitz_bound(conv))
    divided = float(onelip.lipschitz_bound(FixedConv2d(conv, image_size=None)))
    known = float(onelip.lipschitz_bound(FixedConv2d(conv, image_size=(4, 6))))
    norm = sigma_max(matrix_of(conv, (2, 4, 6)))
    assert norm <= known <= norm * (1 + 1e-8)
    assert known <= divided < every
    for size in ((2, 2), (6, 4), (8, 8)):
        assert sigma_max(matrix_of(conv, (2, *size))) <= divided
    assert max(sigma_max(matrix_of(conv, (2, size, size))) for size in (3, 5)) <= every


def test_a_fixed_convolution_refuses_images_it_is_not_proved_for():
    fixed = FixedConv2d(_random_conv(stride=2), image_size=None)
    for size in ((4, 5), (3, 4)):
        with pytest.raises(ValueError, match="circular padding with stride 2 needs sides that it"):
            fixed(torch.zeros(1, 2, *size).double())
    uneven = FixedConv2d(_random_conv(stride=(1, 2)), image_size=None)
    assert uneven(torch.zeros(1, 2, 5, 4).double()).shape == (1, 3, 5, 2)
    with pytest.raises(ValueError, match="needs sides that it divides, got 4 x 5"):
        uneven(torch.zeros(1, 2, 4, 5).double())


def test_a_fixed_convolution_holds_a_plain_one():
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    for conv in (
        Doubled(2, 2, 3),
        parametrizations.weight_norm(nn.Conv2d(2, 2, 3)).eval(),
        nn.ReLU(),
    ):
        with pytest.raises(UnboundedModuleError, match=r"FixedConv2d holds a \w+, no nn\.Conv2d"):
            onelip.lipschitz_bound(FixedConv2d(conv, image_size=None))
    conv = nn.Conv2d(2, 2, 3)
    conv.register_forward_hook(lambda *_: None)
    with pytest.raises(UnboundedModuleError, match="forward hook"):
        onelip.lipschitz_bound(FixedConv2d(conv, image_size=None))


@pytest.mark.parametrize("image_size", [None, (4, 6)])
def test_a_fixed_convolution_exports_itself(image_size):
    fixed = FixedConv2d(_random_conv(stride=2), image_size=image_size)
    exported = onelip.export(fixed)
    assert type(exported) is FixedConv2d
    assert exported.image_size == image_size
    assert exported.conv is not fixed.conv
    assert torch.equal(exported.conv.weight, fixed.conv.weight)


# Errors


@pytest.mark.parametrize("family", CONVS)
def test_preconditions_of_convolutions(family):
    for sizes in ((0, 2, 3), (2, 0, 3), (2, 2, 0), (-2, 2, 3)):
        with pytest.raises(ValueError, match="channels, sizes, stride and groups must be positive"):
            family(*sizes)
    for name in ("stride", "dilation", "groups"):
        with pytest.raises(ValueError, match="must be positive, got"):
            family(2, 2, 3, **{name: 0})
    with pytest.raises(ValueError, match="groups=2 must divide 3 and 2 channels"):
        family(3, 2, 3, groups=2)
    with pytest.raises(ValueError, match="groups=2 must divide 2 and 3 channels"):
        family(2, 3, 3, groups=2)
    for mode in ("reflect", "replicate", "nonsense"):
        with pytest.raises(UnboundedModuleError, match=f"padding_mode='{mode}' repeats pixels"):
            family(2, 2, 3, padding_mode=mode)
    assert "2, 3, kernel_size=(3, 3), stride=(1, 1), padding='same'" in repr(family(2, 3, 3))


@pytest.mark.parametrize("family", CONVS)
def test_kernels_larger_than_the_image_it_is_proved_for(family):
    layer = family(2, 2, 5, padding=0, padding_mode="zeros", image_size=4)
    with pytest.raises(ValueError, match="spans 5 pixels does not fit into 4"):
        onelip.lipschitz_bound(layer)


MODES = {
    "AOLConv2d": (partial(layers.AOLConv2d, 2, 3, 3), (2, 5, 5)),
    "SVCMConv2d": (partial(layers.SVCMConv2d, 2, 3, 3, image_size=5), (2, 5, 5)),
    "AOCConv1d": (partial(layers.AOCConv1d, 2, 3, 3), (2, 5)),
    "SOCConv2d": (partial(layers.SOCConv2d, 2, 2, 3), (2, 5, 5)),
    "ConvexPotentialConv2d": (partial(layers.ConvexPotentialConv2d, 2, 3), (2, 5, 5)),
    "SLLConv2d": (partial(layers.SLLConv2d, 2, 3), (2, 5, 5)),
}


def test_a_padding_mode_that_is_set_later_is_none_that_repeats_pixels(each):
    """Taken for zeros in ``forward`` and for a reflection in the export: two functions."""
    for name in each(MODES):
        build, shape = MODES[name]
        layer = build(**({"image_size": 5} if name == "ConvexPotentialConv2d" else {})).eval()
        layer.padding_mode = "reflect"
        image = torch.randn(1, *shape)
        queries = (onelip.export, lipschitz_bound, partial(read, input_shape=shape))
        for ask, of in ((layer, image), *((query, layer) for query in queries)):
            with pytest.raises(UnboundedModuleError, match="padding_mode='reflect' repeats pixels"):
                ask(of)


def test_settings_that_change_later_count_for_all_four(each):
    """Function, bound, chain and export go by the kernel and the padding in use."""
    changes = [
        (layers.SVCMConv2d(2, 3, 3, image_size=6), {"kernel_size": 5}),
        (layers.AOLConv2d(2, 3, 3), {"padding": 0}),
        (layers.AOLConv2d(2, 3, 3), {"padding": 2}),
        (layers.RKOConv2d(2, 3, 2, stride=2), {"padding_mode": "zeros", "padding": 1}),
        (layers.AOCConv1d(2, 3, 3), {"padding": (0, 0)}),
        (layers.AOCConv1d(2, 3, 3), {"padding": (0, 3)}),
        (layers.AOCConv1d(2, 3, 3), {"kernel_size": 4}),
        (layers.AOCConv1d(2, 3, 2), {"padding_mode": "zeros"}),
    ]
    for built, settings in each(changes):
        layer = built.double().eval()
        for name, value in settings.items():
            setattr(layer, name, value)
        shape = (2, 6) if isinstance(layer, layers.AOCConv1d) else (2, 6, 6)
        images = torch.randn(3, *shape, dtype=torch.float64)
        expected = layer(images)
        torch.testing.assert_close(read(layer, shape).forward(images), expected)
        torch.testing.assert_close(onelip.export(layer)(images), expected)
        assert sigma_max(matrix_of(layer, shape)) <= float(lipschitz_bound(layer)) * (1 + 1e-14)
