"""deel-torchlip's layers: what they compute, what we prove of it, and what they claim."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import onelip
from onelip.errors import UnboundedModuleError
from onelip.foreign.checked_inputs import Centering, HalvesHouseHolder
from onelip.layers import FixedConv2d, Normalize
from onelip.testing import check_layer, jacobian_norm

deel = pytest.importorskip("deel.torchlip")


def drawn(layer: nn.Module) -> nn.Module:
    """Numbers that no constructor gives, pushed through training once."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    layer.train()
    for part in layer.modules():
        if hasattr(part, "weight"):
            for _ in range(20):
                _ = part.weight  # power iterations
    return layer.eval()


def batch_norm(kind: Callable[..., nn.Module], batches: int, **options) -> nn.Module:
    layer = kind(4, **options)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    for _ in range(batches):
        layer(2 * torch.randn(6, 4, 3, 3) + torch.randn(4, 1, 1))
    return layer.eval()


def resumed_norm(*, again: int) -> nn.Module:
    """Trained, evaluated, which turns sums into means, and trained again on other numbers."""
    layer = batch_norm(deel.BatchLipNorm, 2)
    layer(torch.randn(1, 4, 3, 3))
    layer.train()
    for _ in range(again):
        layer(3 * torch.randn(2, 4, 2, 2))
    return layer.eval()


def exported_norm() -> nn.Module:
    """What deel-torchlip itself makes of a normalisation."""
    return batch_norm(deel.BatchLipNorm, 2).vanilla_export().eval()


@dataclass(frozen=True)
class Row:
    id: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    kind: type[nn.Module]  # of what is exported


def conv(name: str, kind: type[nn.Module] = nn.Conv2d, size: int = 5, **options) -> Row:
    options = {"kernel_size": 3, **options}
    return Row(
        f"SpectralConv2d-{name}",
        lambda: drawn(deel.SpectralConv2d(2, 4, **options)),
        (2, size, size),
        kind,
    )


BOUNDED = [
    Row("SpectralLinear", lambda: drawn(deel.SpectralLinear(5, 3)), (5,), nn.Linear),
    Row("SpectralLinear-new", lambda: deel.SpectralLinear(3, 5, bias=False), (3,), nn.Linear),
    Row(
        "SpectralLinear-power",
        lambda: drawn(deel.SpectralLinear(5, 5, k_coef_lip=0.3, eps_bjorck=None)),
        (5,),
        nn.Linear,
    ),
    Row("FrobeniusLinear", lambda: drawn(deel.FrobeniusLinear(5, 4)), (5,), nn.Linear),
    Row(
        "FrobeniusLinear-joint",
        lambda: drawn(deel.FrobeniusLinear(5, 4, disjoint_neurons=False)),
        (5,),
        nn.Linear,
    ),
    conv("valid"),
    conv("zeros", padding=1, k_coef_lip=2.0),
    conv("same", padding="same", padding_mode="circular"),
    conv("even", kernel_size=2, padding="same", padding_mode="circular"),
    conv("wide", kernel_size=1, padding=5, padding_mode="circular"),
    conv("stride", stride=2, padding=1),
    conv("stride-circular", FixedConv2d, 4, stride=2, padding=1, padding_mode="circular"),
    conv("stride-unpadded", kernel_size=2, stride=2, padding_mode="circular"),
    conv("dilation-groups", padding=(2, 1), dilation=(2, 1), groups=2, bias=False),
    Row(
        "SpectralConv1d",
        lambda: drawn(deel.SpectralConv1d(2, 3, 3, padding=1, stride=2)),
        (2, 6),
        nn.Conv1d,
    ),
    Row(
        "SpectralConv1d-circular",
        lambda: drawn(deel.SpectralConv1d(2, 3, 3, padding=1, padding_mode="circular")),
        (2, 5),
        nn.Conv1d,
    ),
    Row(
        "FrobeniusConv2d",
        lambda: drawn(deel.FrobeniusConv2d(2, 1, 3, padding=1)),
        (2, 4, 4),
        nn.Conv2d,
    ),
    Row(
        "SpectralConvTranspose2d",
        lambda: drawn(deel.SpectralConvTranspose2d(4, 2, 3, stride=2, padding=1, groups=2)),
        (4, 3, 2),
        nn.ConvTranspose2d,
    ),
    Row("PadConv1d", lambda: deel.PadConv1d(2, 3, 3, padding=1), (2, 5), nn.Conv1d),
    Row("PadConv2d", lambda: deel.PadConv2d(2, 3, 3, padding=1), (2, 4, 4), nn.Conv2d),
    Row("MaxMin", lambda: deel.MaxMin(k_coef_lip=1.7), (3, 2), deel.MaxMin),
    Row("MaxMin-last", lambda: deel.MaxMin(dim=2), (3, 2), deel.MaxMin),
    Row("GroupSort", lambda: deel.GroupSort(3), (6, 2, 2), deel.GroupSort),
    Row("GroupSort2", lambda: deel.GroupSort2(k_coef_lip=0.1), (4,), deel.GroupSort2),
    Row("FullSort", deel.FullSort, (5, 2), deel.FullSort),
    Row("LPReLU", lambda: drawn(deel.LPReLU(3)), (3, 2, 2), deel.LPReLU),
    Row("LPReLU-steep", lambda: deel.LPReLU(init=-9.0, k_coef_lip=2.0), (3,), deel.LPReLU),
    Row(
        "ScaledAvgPool2d",
        lambda: deel.ScaledAvgPool2d((2, 3), k_coef_lip=0.7),
        (2, 4, 6),
        deel.ScaledAvgPool2d,
    ),
    Row(
        "ScaledAvgPool2d-divisor",
        lambda: deel.ScaledAvgPool2d(2, divisor_override=1),
        (2, 4, 4),
        deel.ScaledAvgPool2d,
    ),
    Row(
        "ScaledAdaptiveAvgPool2d",
        lambda: deel.ScaledAdaptiveAvgPool2d((1, 1)),
        (2, 3, 5),
        deel.ScaledAdaptiveAvgPool2d,
    ),
    Row(
        "ScaledL2NormPool2d",
        lambda: deel.ScaledL2NormPool2d(2, k_coef_lip=1.3),
        (2, 4, 5),
        deel.ScaledL2NormPool2d,
    ),
    Row(
        "ScaledAdaptativeL2NormPool2d",
        lambda: deel.ScaledAdaptativeL2NormPool2d(k_coef_lip=0.7),
        (2, 4, 3),
        deel.ScaledAdaptativeL2NormPool2d,
    ),
    Row(
        "InvertibleDownSampling",
        lambda: deel.InvertibleDownSampling(2, k_coef_lip=0.5),
        (1, 4, 4),
        deel.InvertibleDownSampling,
    ),
    Row(
        "InvertibleUpSampling",
        lambda: deel.InvertibleUpSampling(2),
        (4, 2, 2),
        deel.InvertibleUpSampling,
    ),
    Row(
        "Sequential",
        lambda: deel.Sequential(
            drawn(deel.SpectralConv2d(1, 4, 3, padding=1)),
            deel.GroupSort2(),
            deel.ScaledL2NormPool2d(2),
            nn.Flatten(),
            drawn(deel.SpectralLinear(16, 3)),
            k_coef_lip=3.0,
        ),
        (1, 4, 4),
        nn.Sequential,
    ),
]

EXPORTED_FIRST = [
    Row("HouseHolder", lambda: drawn(deel.HouseHolder(6)), (6,), HalvesHouseHolder),
    Row("HouseHolder-images", lambda: deel.HouseHolder(4), (4, 2, 2), HalvesHouseHolder),
    Row("LayerCentering", lambda: drawn(deel.LayerCentering(3)), (3, 4, 2), Centering),
    Row(
        "LayerCentering-channels",
        lambda: drawn(deel.LayerCentering(3, dim=(1, -1))),
        (3, 2, 2),
        Centering,
    ),
    Row("LayerCentering-free", lambda: deel.LayerCentering(bias=False), (3, 4, 2), Centering),
    *(
        Row(f"{kind.__name__}-{batches}", lambda k=kind, n=batches: batch_norm(k, n), (4, 3, 3), to)
        for kind, to in ((deel.BatchCentering, Normalize), (deel.BatchLipNorm, Normalize))
        for batches in (0, 1, 3)
    ),
    Row(
        "BatchLipNorm-bare",
        lambda: batch_norm(deel.BatchLipNorm, 2, centering=False, bias=False),
        (4, 3, 3),
        Normalize,
    ),
    Row("BatchLipNorm-evaluated", lambda: resumed_norm(again=0), (4, 3, 3), Normalize),
    Row("BatchLipNorm-resumed", lambda: resumed_norm(again=2), (4, 3, 3), Normalize),
    Row("ScaleBiasLayer", exported_norm, (4, 3, 3), Normalize),
]


def wide(row: Row) -> nn.Module:
    return row.build().double().eval()


def named(row: Row) -> str:
    return row.id


@pytest.mark.parametrize("row", BOUNDED, ids=named)
def test_contract(row: Row):
    check_layer(row.build(), row.shape)


@pytest.mark.parametrize("row", EXPORTED_FIRST, ids=named)
def test_contract_after_export(row: Row):
    layer = wide(row)
    name = type(layer).__name__
    with pytest.raises(UnboundedModuleError, match=rf"{name} stretches .* onelip\.export"):
        onelip.lipschitz_bound(layer)
    check_layer(onelip.export(layer), row.shape)


def test_the_exported_module_computes_the_same(each):
    for row in each(BOUNDED + EXPORTED_FIRST):
        layer = wide(row)
        state = copy.deepcopy(layer.state_dict())
        exported, x = onelip.export(layer), torch.randn(5, *row.shape, dtype=torch.float64)
        assert type(exported) is row.kind
        assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
        torch.testing.assert_close(exported(x), layer(x), rtol=1e-9, atol=1e-9)
        assert not any(p.requires_grad for p in exported.parameters())
        assert exported(x).dtype == torch.float64
        single = onelip.export(row.build())
        assert single(x.float()).dtype == torch.float32


def test_every_class_of_the_tables_has_a_row():
    from onelip.foreign import deel_torchlip as ours

    rows = {type(row.build()).__bases__[0] for row in BOUNDED} | {
        type(row.build()) for row in BOUNDED + EXPORTED_FIRST
    }
    assert set(ours.RECORDS) - rows == set()


@pytest.mark.parametrize("steps", [1, 3])
def test_the_weight_of_eval_mode_counts_which_is_a_step_old(steps):
    """Bjorck's result is kept from the last forward pass, whatever the optimizer did since."""
    layer = deel.SpectralLinear(6, 6).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=5.0)
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.randn(4, 6, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
    with pytest.raises(UnboundedModuleError, match="training mode"):
        onelip.lipschitz_bound(layer)
    exported, x = onelip.export(layer), torch.randn(3, 6, dtype=torch.float64)
    layer.eval()
    assert torch.equal(exported(x), layer(x))
    kept = layer.parametrizations.weight[1]._w_bjorck
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(
        float(torch.linalg.matrix_norm(kept, 2)), rel=1e-8
    )


def test_a_sequential_scales_activations_and_leaves_weights_alone():
    model = deel.Sequential(deel.SpectralLinear(4, 4), deel.GroupSort2(), k_coef_lip=9.0).eval()
    assert float(onelip.lipschitz_bound(model)) == pytest.approx(3, rel=1e-5)
    assert float(jacobian_norm(model, torch.randn(4))) == pytest.approx(3, rel=1e-5)


REFUSED = {
    "symmetric-2": (
        lambda: deel.SpectralConv2d(2, 2, 5, padding=2, padding_mode="symmetric"),
        r"SpectralConv2d pads by SymmetricPad\(\) .*'symmetric'.* use 'zeros'",
    ),
    "symmetric-1d": (
        lambda: deel.SpectralConv1d(2, 2, 3, padding=1, padding_mode="symmetric"),
        r"SpectralConv1d pads by SymmetricPad\(\) .*'symmetric'.* use 'zeros'",
    ),
    "ceil-average": (lambda: deel.ScaledAvgPool2d(3, ceil_mode=True), "ceil_mode=False"),
    "ceil-l2": (lambda: deel.ScaledL2NormPool2d(3, ceil_mode=True), "leave the image"),
    "batch": (lambda: deel.MaxMin(dim=0), "may mix the batch"),
    "two-inputs": (deel.LipResidual, "residual.LipResidual; derive it"),
    "softmax": (lambda: deel.Sequential(nn.Softmax(1)), "Softmax; derive it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    build, message = REFUSED[name]
    with pytest.raises(UnboundedModuleError, match=message):
        onelip.lipschitz_bound(build().eval())


def test_padding_that_was_exchanged_is_refused():
    layer = deel.SpectralConv2d(2, 2, 3).eval()
    for pad in (lambda x: 10 * x, lambda x: x, nn.ReflectionPad2d(1)):
        layer.pad = pad
        with pytest.raises(UnboundedModuleError, match=r"SpectralConv2d pads by .* of its own"):
            onelip.lipschitz_bound(layer)
        with pytest.raises(UnboundedModuleError, match=r"SpectralConv2d pads by .* of its own"):
            onelip.export(layer)


def test_an_l2_pool_that_came_to_overlap_is_bounded_by_the_windows_of_a_pixel():
    pool = deel.ScaledL2NormPool2d(3)
    pool.stride = 2
    assert float(onelip.lipschitz_bound(pool)) == 2
    peak = torch.zeros(1, 1, 5, 5)
    peak[0, 0, 2, 2] = 1
    assert float(pool(peak).norm()) == 2


def test_a_scale_of_zero_is_refused():
    with pytest.raises(UnboundedModuleError, match="scale of 0"):
        onelip.export(deel.ScaleBiasLayer(scalar=0.0, num_features=3))


CLAIMS = {
    "k of a HouseHolder": (lambda: deel.HouseHolder(4, k_coef_lip=0.5), (4, 2, 2), 0.5, 1.0),
    "k of a LPReLU": (lambda: deel.LPReLU(k_coef_lip=0.5), (9,), 0.5, 1.0),
    "k of a shuffle": (lambda: deel.InvertibleDownSampling(2, k_coef_lip=0.5), (1, 4, 4), 0.5, 1.0),
    "k after the weight": (
        lambda: deel.Sequential(deel.SpectralLinear(4, 4), k_coef_lip=0.5),
        (4,),
        0.5,
        1.0,
    ),
    "divisor_override": (lambda: deel.ScaledAvgPool2d(2, divisor_override=1), (1, 4, 4), 1.0, 4.0),
    "stride and dilation": (
        lambda: _filled(
            deel.SpectralConv2d(
                1, 1, 2, stride=2, dilation=2, padding=1, padding_mode="circular", bias=False
            )
        ),
        (1, 8, 8),
        1.0,
        2.0,
    ),
    "wide circular padding": (
        lambda: deel.SpectralConv2d(1, 1, 1, padding=4, padding_mode="circular"),
        (1, 4, 4),
        1.0,
        3.0,
    ),
    "equal rows": (lambda: _filled(deel.FrobeniusLinear(4, 16)), (4,), 1.0, 4.0),
}


def _filled(layer: nn.Module) -> nn.Module:
    layer.parametrizations.weight.original.data.fill_(1.0)
    layer.train()
    for _ in range(20):
        _ = layer.weight  # a power iteration
    return layer


@pytest.mark.parametrize("name", CLAIMS)
def test_constants_above_the_claim(name: str):
    build, shape, claim, true = CLAIMS[name]
    layer = build().eval().double()
    found = max(float(jacobian_norm(layer, x)) for x in torch.randn(5, *shape, dtype=torch.float64))
    assert found == pytest.approx(true, rel=1e-3)
    assert found > 1.9 * claim
    bound = float(onelip.lipschitz_bound(onelip.export(layer)))
    assert found * (1 - 1e-12) <= bound <= found * 1.02


def test_inputs_of_another_shape_are_repeated_there_and_refused_here():
    x = torch.rand(1, 1, 4, 4)
    centering = deel.BatchCentering(9).eval()
    shifted = centering(x + 1) - centering(x)
    assert float(shifted.detach().norm()) == pytest.approx(3 * 4)  # 9 copies of 16 pixels
    with pytest.raises(ValueError, match="9 channels are normalised"):
        onelip.export(centering)(x)
    layer = deel.LayerCentering(9).eval()
    assert layer(x).shape == (1, 9, 4, 4)
    with pytest.raises(ValueError, match="9 channels are asked"):
        onelip.export(layer)(x)
    folds = deel.HouseHolder(8).eval()
    assert folds(torch.rand(1, 2)).shape == (1, 8)
    with pytest.raises(ValueError, match="8 channels are asked"):
        onelip.export(folds)(torch.rand(1, 2))
    with pytest.raises(ValueError, match="hold the batch"):
        onelip.export(deel.LayerCentering(3))(torch.rand(2, 3))


def test_max_pooling_that_overlaps_along_one_axis_passes_there_without_a_warning(recwarn):
    model = deel.Sequential(nn.MaxPool2d((1, 5), stride=(2, 1)))
    assert not recwarn
    peak = torch.zeros(1, 1, 1, 9)
    peak[..., 4] = 1
    assert float(model(peak).norm()) == pytest.approx(5**0.5)
    assert float(onelip.lipschitz_bound(model)) == pytest.approx(5**0.5)


@pytest.mark.filterwarnings("ignore:Sequential model contains")
def test_a_network_from_training_to_certificate():
    model = deel.Sequential(
        deel.SpectralConv2d(1, 6, 3, padding=1),
        deel.BatchCentering(6),
        deel.GroupSort2(),
        deel.ScaledL2NormPool2d(2),
        deel.SpectralConv2d(6, 8, 3, padding=1, padding_mode="circular"),
        deel.LayerCentering(8),
        deel.HouseHolder(8),
        nn.Flatten(),
        deel.SpectralLinear(8 * 16, 16),
        deel.FullSort(),
        deel.FrobeniusLinear(16, 3),
    )
    x, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(20 * model(x), labels).backward()
        optimizer.step()
    exported = onelip.export(model)
    assert type(exported) is nn.Sequential
    model.eval()
    with torch.no_grad():
        assert torch.allclose(exported(x), model(x), atol=1e-5)
    certificate = onelip.certify(exported, x)
    assert certificate.head == "pairwise"
    assert 0.5 < float(certificate.body_bound) < 1  # less than is claimed
    assert bool((certificate.radius > 0).all())
    assert float(jacobian_norm(exported, x[0])) <= float(certificate.bound)
    steps = F.normalize(torch.randn(12, 64), dim=1) * 0.999 * certificate.radius.float()[:, None]
    assert torch.equal(exported(x + steps.view_as(x)).argmax(1), certificate.prediction)


def test_padding_that_repeats_pixels_stretches_and_the_bound_says_so(each):
    kinds = (
        lambda: deel.SpectralConv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        lambda: deel.FrobeniusConv2d(2, 1, 3, padding=1, padding_mode="replicate"),
        lambda: deel.PadConv2d(2, 2, 3, padding=1, padding_mode="symmetric"),  # one: replicate
    )
    for build in each(kinds):
        layer = build().eval()
        seen = float(jacobian_norm(layer, torch.randn(2, 5, 5)))
        assert seen <= float(onelip.lipschitz_bound(layer)) <= 4 * seen
