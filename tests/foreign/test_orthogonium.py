"""orthogonium's layers: what they compute, what we prove of it, and what they claim."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import onelip
from onelip.errors import UnboundedModuleError
from onelip.foreign.adjoint_step import AdjointStep
from onelip.foreign.checked_inputs import Centering, HalvesHouseHolder
from onelip.layers import FixedConv2d, GradientStep, Normalize
from onelip.layers.residual import MeanSquareResidual, WeightedResidual
from onelip.testing import check_layer, jacobian_norm
from tests.oracles import materialised, sigma_max

ortho = pytest.importorskip("orthogonium.layers")

from orthogonium.layers import residual  # noqa: E402
from orthogonium.layers.conv import AOL, SLL  # noqa: E402
from orthogonium.layers.conv.adaptiveSOC import (  # noqa: E402
    AdaptiveSOCConv2d,
    AdaptiveSOCConvTranspose2d,
)
from orthogonium.layers.custom_activations import HouseHolder_Order_2, SoftHuber  # noqa: E402
from orthogonium.model_factory import ClassParam  # noqa: E402
from orthogonium.reparametrizers import (  # noqa: E402
    BatchedIdentity,
    BatchedQROrthogonalization,
    OrthoParams,
)

STILL = OrthoParams(BatchedIdentity, ClassParam(BatchedQROrthogonalization))
"""Orthogonal matrices without a power iteration."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:kernel size changed"),
    pytest.mark.filterwarnings("ignore:This configuration does not yield"),
]


@pytest.fixture(autouse=True)
def _float64():
    """The dtype of the constructor stays in some of the layers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@dataclass(frozen=True)
class Row:
    id: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    kind: type[nn.Module]  # of what is exported


def drawn(layer: nn.Module) -> nn.Module:
    """Parameters that no constructor gives."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.eval()


def biased(layer: nn.Module) -> nn.Module:
    nn.init.normal_(layer.bias)
    return layer.eval()


def still(name: str, shape: tuple[int, ...], kind: type[nn.Module], *arguments, **options) -> Row:
    return Row(
        f"AdaptiveOrthoConv2d-still-{name}",
        lambda: biased(ortho.AdaptiveOrthoConv2d(*arguments, ortho_params=STILL, **options)),
        shape,
        kind,
    )


def _centering(batches: int) -> nn.Module:
    layer = ortho.BatchCentering2D(3)
    for _ in range(batches):
        layer(torch.randn(5, 3, 2, 2) + torch.randn(3, 1, 1))
    return biased(layer)


def _branch() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())


BOUNDED = [
    still("square", (4, 5, 5), nn.Conv2d, 4, 4, 3),
    still("even-groups", (4, 4, 4), nn.Conv2d, 4, 8, 2, groups=2),
    still("stride", (4, 4, 4), FixedConv2d, 4, 6, 4, stride=2, padding=1),
    still("rko", (3, 4, 4), nn.Conv2d, 3, 6, 2, stride=2, padding=0),
    still("rko-zeros", (3, 4, 5), nn.Conv2d, 3, 6, 2, stride=2, padding=1, padding_mode="zeros"),
    still("dilation", (4, 6, 6), nn.Conv2d, 4, 4, 3, dilation=2),
    *(
        Row(
            f"AdaptiveOrthoConvTranspose2d-still-{kernel}-{stride}",
            lambda k=kernel, s=stride: biased(
                ortho.AdaptiveOrthoConvTranspose2d(8, 2, k, stride=s, ortho_params=STILL)
            ),
            (8, 3, 2),
            nn.ConvTranspose2d,
        )
        for kernel, stride in ((3, 1), (4, 2), (2, 2))
    ),
    Row("AOLConv2D", lambda: drawn(AOL.AOLConv2D(3, 4, 3, padding=1)), (3, 4, 4), nn.Conv2d),
    Row(
        "AOLConv2D-steps",
        lambda: drawn(AOL.AOLConv2D(4, 2, 3, groups=2, padding_mode="circular", niter=3)),
        (4, 4, 4),
        nn.Conv2d,
    ),
    Row(
        "AOLConvTranspose2D",
        lambda: drawn(AOL.AOLConvTranspose2D(4, 2, 3, stride=2, padding=1, output_padding=1)),
        (4, 3, 3),
        nn.ConvTranspose2d,
    ),
    Row("FastSOC", lambda: biased(AdaptiveSOCConv2d(3, 4, 3)), (3, 7, 7), nn.Conv2d),
    Row(
        "FastSOC-zeros",
        lambda: biased(AdaptiveSOCConv2d(4, 2, 3, groups=2, padding_mode="zeros")),
        (4, 6, 6),
        nn.Conv2d,
    ),
    Row(
        "SOCTranspose",
        lambda: biased(AdaptiveSOCConvTranspose2d(4, 4, 3)),
        (4, 3, 3),
        nn.ConvTranspose2d,
    ),
    Row("UnitNormLinear", lambda: drawn(ortho.UnitNormLinear(5, 4)), (5,), nn.Linear),
    Row("MaxMin", ortho.MaxMin, (4, 3), ortho.MaxMin),
    Row("MaxMin-axis", lambda: ortho.MaxMin(axis=2), (3, 4, 2), ortho.MaxMin),
    Row("Abs", ortho.Abs, (3, 2), ortho.Abs),
    Row("SoftHuber", lambda: SoftHuber(0.1), (5,), SoftHuber),
    Row("ChannelShuffle", lambda: ortho.ChannelShuffle(2, 3), (6, 2), ortho.ChannelShuffle),
    Row(
        "ConcatResidual",
        lambda: residual.ConcatResidual(nn.Conv2d(2, 4, 3, padding=1)),
        (4, 3, 3),
        residual.ConcatResidual,
    ),
    Row(
        "SDPBasedLipschitzResBlock",
        lambda: drawn(SLL.SDPBasedLipschitzResBlock(3, 2)),
        (3, 4, 4),
        AdjointStep,
    ),
    Row(
        "SDPBasedLipschitzResBlock-even",
        lambda: drawn(SLL.SDPBasedLipschitzResBlock(4, 2, kernel_size=2, groups=2)),
        (4, 3, 4),
        AdjointStep,
    ),
    Row(
        "SDPBasedLipschitzDense",
        lambda: drawn(SLL.SDPBasedLipschitzDense(4, 4, 6)),
        (4,),
        GradientStep,
    ),
]

UNCHECKED = [
    Row("HouseHolder", lambda: drawn(ortho.HouseHolder(6)), (6, 2, 2), HalvesHouseHolder),
    Row("BatchCentering2D-new", lambda: _centering(0), (3, 2, 3), Normalize),
    Row("BatchCentering2D", lambda: _centering(3), (3, 2, 3), Normalize),
    Row("LayerCentering2D", lambda: drawn(ortho.LayerCentering2D(3)), (3, 2, 3), Centering),
    Row(
        "AdditiveResidual",
        lambda: residual.AdditiveResidual(_branch(), init_val=-0.3),
        (3, 3, 3),
        WeightedResidual,
    ),
    Row(
        "PrescaledAdditiveResidual",
        lambda: residual.PrescaledAdditiveResidual(_branch(), init_val=-1.7),
        (3, 3, 3),
        WeightedResidual,
    ),
    Row(
        "L2NormResidual",
        lambda: residual.L2NormResidual(_branch(), eps=1e-3),
        (3, 3, 3),
        MeanSquareResidual,
    ),
]

MOVING = [
    Row(
        "FastBlockConv2d", lambda: biased(ortho.AdaptiveOrthoConv2d(4, 4, 3)), (4, 5, 5), nn.Conv2d
    ),
    Row(
        "BcopRkoConv2d",
        lambda: biased(ortho.AdaptiveOrthoConv2d(4, 16, 4, stride=2, padding=1)),
        (4, 4, 4),
        FixedConv2d,
    ),
    Row(
        "RKOConv2d",
        lambda: biased(ortho.AdaptiveOrthoConv2d(3, 6, 2, stride=2, padding=0)),
        (3, 4, 4),
        nn.Conv2d,
    ),
    Row(
        "FastBlockConvTranspose2D",
        lambda: biased(ortho.AdaptiveOrthoConvTranspose2d(4, 4, 3)),
        (4, 3, 3),
        nn.ConvTranspose2d,
    ),
    Row(
        "BcopRkoConvTranspose2d",
        lambda: biased(ortho.AdaptiveOrthoConvTranspose2d(8, 2, 4, stride=2, padding=1)),
        (8, 3, 2),
        nn.ConvTranspose2d,
    ),
    Row(
        "RkoConvTranspose2d",
        lambda: biased(ortho.AdaptiveOrthoConvTranspose2d(8, 2, 2, stride=2)),
        (8, 2, 2),
        nn.ConvTranspose2d,
    ),
    Row(
        "SOCRkoConv2d",
        lambda: biased(AdaptiveSOCConv2d(4, 8, 4, stride=2, padding=4)),
        (4, 4, 4),
        FixedConv2d,
    ),
    Row(
        "SOCRkoConvTranspose2d",
        lambda: biased(AdaptiveSOCConvTranspose2d(8, 2, 4, stride=2)),
        (8, 2, 2),
        nn.ConvTranspose2d,
    ),
    Row("OrthoLinear", lambda: drawn(ortho.OrthoLinear(5, 3)), (5,), nn.Linear),
]

BLOCKS = [
    Row("AOCLipschitzResBlock", lambda: SLL.AOCLipschitzResBlock(4, 2, 3), (4, 4, 5), AdjointStep),
    Row(
        "AOCLipschitzResBlock-zeros",
        lambda: SLL.AOCLipschitzResBlock(4, 1, 3, groups=2, bias=False, padding_mode="zeros"),
        (4, 4, 4),
        AdjointStep,
    ),
    *(
        Row(
            f"SLLxAOCLipschitzResBlock-{kernel}-{stride}-{groups}",
            lambda k=kernel, s=stride, g=groups: SLL.SLLxAOCLipschitzResBlock(
                4, 8, 2, kernel_size=k, stride=s, groups=g
            ),
            (4, 6, 7),
            nn.Sequential,
        )
        for kernel, stride, groups in ((3, 1, 1), (3, 2, 1), (5, 2, 2), (5, 3, 1), (7, 4, 1))
    ),
]
ROWS = BOUNDED + UNCHECKED + MOVING + BLOCKS


def named(row: Row) -> str:
    return row.id


def plain_type(layer: nn.Module) -> type[nn.Module]:
    return torch.nn.utils.parametrize.type_before_parametrizations(layer)


@pytest.mark.parametrize("row", BOUNDED, ids=named)
def test_contract(row: Row):
    check_layer(row.build(), row.shape)


@pytest.mark.parametrize("row", UNCHECKED + MOVING + BLOCKS, ids=named)
def test_contract_after_export(row: Row):
    check_layer(onelip.export(row.build()), row.shape)


def test_the_exported_module_computes_the_same(each):
    for row in each(ROWS):
        layer = row.build().eval()
        state = copy.deepcopy(layer.state_dict())
        exported, x = onelip.export(layer), torch.randn(4, *row.shape)
        assert type(exported) is row.kind
        assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
        torch.testing.assert_close(exported(x), layer(x), rtol=1e-9, atol=1e-9)
        assert not any(p.requires_grad for p in exported.parameters())


def test_after_three_steps_of_training(each):
    for row in each(ROWS):
        layer = row.build().train()
        optimizer = torch.optim.SGD([*layer.parameters()] or [torch.zeros(1)], lr=0.5)
        for _ in range(3):
            y = layer(torch.randn(4, *row.shape))
            if y.requires_grad:
                optimizer.zero_grad()
                (y * torch.randn_like(y)).mean().backward()
                optimizer.step()
        exported, x = onelip.export(layer), torch.randn(4, *row.shape)
        torch.testing.assert_close(exported(x), layer.eval()(x), rtol=1e-9, atol=1e-9)
        bound = float(onelip.lipschitz_bound(exported))
        assert float(jacobian_norm(exported, x[0])) <= bound * (1 + 1e-12)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (UNCHECKED, r"stretches inputs of another shape.*onelip\.export"),
        (MOVING, r"computes another weight each time it is read, in eval mode too: onelip\.export"),
        (BLOCKS, r"computes its kernels anew.*onelip\.export"),
    ],
    ids=["unchecked", "moving", "blocks"],
)
def test_what_must_be_exported_first(rows: list[Row], message: str):
    for row in rows:
        layer = row.build().eval()
        with pytest.raises(UnboundedModuleError, match=plain_type(layer).__name__ + " " + message):
            onelip.lipschitz_bound(layer)


def test_every_class_of_the_tables_has_a_row():
    from onelip.foreign import orthogonium as ours

    assert set(ours.RECORDS) == {plain_type(row.build()) for row in ROWS}


def test_a_forward_pass_in_eval_mode_moves_the_weight():
    """What the refusal is for: two passes, two functions."""
    torch.manual_seed(0)
    layer = drawn(ortho.OrthoLinear(64, 64))
    x = torch.randn(1, 64)
    with torch.no_grad():
        first, second = layer(x), layer(x)
    assert 1e-4 < float((first - second).norm() / first.norm()) < 0.1
    exported = onelip.export(layer)
    assert torch.equal(exported(x), exported(x))


def test_kernels_that_have_outgrown_their_padding():
    """The number of wrapped pixels is that of the kernel before the exponential made it larger."""
    layer = AdaptiveSOCConv2d(3, 3, 3, bias=False).eval()
    exported = onelip.export(layer)
    assert exported.kernel_size == (7, 7)
    assert exported.padding == (1, 1)  # 3 would be "same"
    matrix = materialised(layer, (3, 7, 7)).detach()
    assert matrix.shape == (3 * 3 * 3, 3 * 49)
    assert sigma_max(matrix) <= float(onelip.lipschitz_bound(layer))


def test_wrapping_that_was_changed_behind_the_modules_back():
    layer = ortho.AdaptiveOrthoConv2d(4, 4, 3, padding=1).eval()
    layer.padding = (0, 0)  # torch wraps by what it computed before
    exported, x = onelip.export(layer), torch.randn(2, 4, 5, 5)
    assert exported.padding == (1, 1)
    torch.testing.assert_close(exported(x), layer(x))
    uneven = ortho.AdaptiveOrthoConv2d(4, 4, 2).eval()
    uneven.padding = "valid"
    exported = onelip.export(uneven)
    assert exported.padding == "same"
    torch.testing.assert_close(exported(x), uneven(x))


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_that_repeats_pixels_stretches_and_the_bound_says_so(mode: str):
    torch.manual_seed(0)
    layer = ortho.AdaptiveOrthoConv2d(2, 2, 3, padding=1, padding_mode=mode, bias=False)
    exported = onelip.export(drawn(layer))
    seen = float(jacobian_norm(exported, torch.randn(2, 4, 4)))
    assert 1.2 < seen <= float(onelip.lipschitz_bound(exported)) <= 3.001


def test_circular_strides_ask_for_images_that_they_divide():
    """On others some pixels are read twice."""
    torch.manual_seed(0)
    layer = ortho.AdaptiveOrthoConv2d(4, 8, 3, stride=2, padding=1).eval()
    assert float(jacobian_norm(layer, torch.randn(4, 5, 5))) > 1.5
    exported = onelip.export(layer)
    assert float(onelip.lipschitz_bound(exported)) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="sides that it divides"):
        exported(torch.randn(1, 4, 5, 5))


def test_a_truncated_exponential_is_measured():
    torch.manual_seed(0)
    layer = AdaptiveSOCConv2d(8, 8, 3, bias=False).eval()
    bound = float(onelip.lipschitz_bound(layer))
    assert bound > 1.01
    size = 16
    kernel = torch.fft.fft2(layer.weight.detach(), s=(size, size)).permute(2, 3, 0, 1)
    circular = float(torch.linalg.matrix_norm(kernel, 2).max())
    assert 1.01 < circular <= bound <= circular * 1.02


def test_a_householder_activation_shrinks_more_than_it_must():
    layer = drawn(ortho.HouseHolder(4))
    assert float(jacobian_norm(layer, torch.randn(4, 2, 2))) == pytest.approx(0.5**0.5)
    assert float(onelip.lipschitz_bound(onelip.export(layer))) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    ("fn", "shape"),
    [(lambda: nn.Conv2d(1, 9, 1), (1, 2, 2)), (lambda: nn.Conv2d(9, 1, 1), (9, 2, 2))],
    ids=["more", "fewer"],
)
@pytest.mark.parametrize(
    "kind",
    [residual.AdditiveResidual, residual.PrescaledAdditiveResidual, residual.L2NormResidual],
)
def test_a_branch_that_changes_the_shape_is_refused(kind, fn, shape):
    layer, x = kind(fn()), torch.randn(1, *shape)
    assert layer(x).shape == (1, 9, 2, 2)  # broadcast
    with pytest.raises(ValueError, match="a residual branch turned"):
        onelip.export(layer)(x)


def test_inputs_of_another_shape():
    x = torch.randn(1, 1, 2, 2)
    for layer in (ortho.LayerCentering2D(9), ortho.BatchCentering2D(9)):
        assert layer.eval()(x).shape == (1, 9, 2, 2)
        with pytest.raises(ValueError, match="9 channels are"):
            onelip.export(layer)(x)
    with pytest.raises(ValueError, match="4 channels are asked"):
        onelip.export(ortho.HouseHolder(4))(torch.randn(1, 2, 2, 2))


REFUSED = {
    "batch": (lambda: ortho.MaxMin(axis=0), "may mix the batch"),
    "huber": (lambda: SoftHuber(0.0), "delta=0.0"),
    "order 2": (lambda: HouseHolder_Order_2(4), "HouseHolder_Order_2; derive it"),
    "steps of AOL": (AOL.aol.MultiStepAOLReparametrizer, "MultiStepAOLReparametrizer; derive it"),
    "branch": (lambda: residual.ConcatResidual(nn.Softmax(1)), "Softmax; derive it"),
    "activation": (lambda: _spoiled(SLL.SDPBasedLipschitzResBlock(2, 1)), "slopes are known"),
}
NOT_EXPORTED = {
    "axis": (lambda: ortho.HouseHolder(4, axis=2), "folds axis 2"),
    "eps": (lambda: residual.L2NormResidual(nn.ReLU(), eps=-1.0), "steep without limit"),
    "even": (lambda: SLL.SLLxAOCLipschitzResBlock(4, 4, 1, kernel_size=4), "kernel_size=4, stride"),
    "cropped": (
        lambda: SLL.SLLxAOCLipschitzResBlock(4, 4, 1, kernel_size=3, stride=3),
        "kernel_size=3, stride=3 shifts or crops",
    ),
    "shifted": (
        lambda: SLL.SLLxAOCLipschitzResBlock(4, 4, 1, kernel_size=9, stride=5),
        "kernel_size=9, stride=5 shifts or crops",
    ),
    "wrapped": (lambda: _wrapped(SLL.AOCLipschitzResBlock(4, 1, 3)), "no adjoints"),
    "dense": (lambda: _spoiled(SLL.SDPBasedLipschitzDense(3, 3, 3)), "does not scale"),
}


def _spoiled(layer: nn.Module) -> nn.Module:
    layer.activation = nn.Softsign() if hasattr(layer, "weight") else nn.Softmax(1)
    return layer


def _wrapped(layer: nn.Module) -> nn.Module:
    layer.padding = 1
    return layer


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str):
    build, message = REFUSED[name]
    layer = build() if name != "steps of AOL" else build(2, 1)
    with pytest.raises(UnboundedModuleError, match=message):
        onelip.lipschitz_bound(layer.eval())


@pytest.mark.parametrize("name", NOT_EXPORTED)
def test_not_exported(name: str):
    build, message = NOT_EXPORTED[name]
    with pytest.raises(UnboundedModuleError, match=message):
        onelip.export(build().eval())


def test_branches_that_are_shifted_stretch():
    torch.manual_seed(0)
    layer = SLL.SLLxAOCLipschitzResBlock(2, 8, 4, kernel_size=5, stride=5).eval()
    found = max(float(jacobian_norm(layer, 5 * torch.randn(2, 10, 10))) for _ in range(10))
    assert found > 1.3  # claims 1


def test_a_pair_whose_angle_rounds_to_a_whole_turn_is_lost_by_order_2():
    layer = HouseHolder_Order_2(2).eval()
    layer.theta0.data.zero_()
    above, below = (
        layer(torch.tensor([[[[1.0]], [[y]]]])).detach().norm() for y in (1e-18, -1e-18)
    )
    assert float(above) == pytest.approx(math.sqrt(0.5))
    assert float(below) == 0


def test_a_dense_block_is_measured_with_the_scale_in_use():
    layer = SLL.SDPBasedLipschitzDense(6, 6, 9).eval()
    assert float(onelip.lipschitz_bound(layer)) == 1
    layer.compute_t = lambda: torch.full((9,), 10.0)
    with pytest.raises(UnboundedModuleError, match="patched method"):
        onelip.lipschitz_bound(layer)


def test_a_kernel_that_is_no_longer_short_is_measured():
    layer = onelip.export(SLL.SDPBasedLipschitzResBlock(3, 2))
    layer.weight.data *= 2
    layer.bias.data.fill_(1e3)
    found = float(jacobian_norm(layer, torch.randn(3, 6, 6)))
    assert 1.5 < found <= float(onelip.lipschitz_bound(layer)) <= found * 1.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_network_from_training_to_certificate(dtype: torch.dtype):
    torch.set_default_dtype(dtype)
    model = nn.Sequential(
        ortho.AdaptiveOrthoConv2d(1, 8, 3),
        ortho.BatchCentering2D(8),
        ortho.MaxMin(),
        SLL.SLLxAOCLipschitzResBlock(8, 16, 2),
        residual.AdditiveResidual(
            nn.Sequential(ortho.AdaptiveOrthoConv2d(16, 16, 3), ortho.LayerCentering2D(16))
        ),
        residual.ConcatResidual(nn.Sequential(AdaptiveSOCConv2d(8, 8, 1), ortho.HouseHolder(8))),
        ortho.ChannelShuffle(4, 4),
        residual.L2NormResidual(SLL.SDPBasedLipschitzResBlock(16, 1)),
        nn.Flatten(),
        SLL.SDPBasedLipschitzDense(16 * 16, 16 * 16, 32),
        ortho.OrthoLinear(16 * 16, 16),
        ortho.Abs(),
        ortho.UnitNormLinear(16, 3),
    )
    x, labels = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(20 * model(x), labels).backward()
        optimizer.step()
    exported = onelip.export(model)
    model.eval()
    with pytest.raises(UnboundedModuleError, match=r"onelip\.export\(model\)"):
        onelip.certify(model, x)
    with torch.no_grad():
        close = 1e-9 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(exported(x), model(x), rtol=close, atol=close)
    certificate = onelip.certify(exported, x)
    assert certificate.head == "pairwise"
    assert 1 <= float(certificate.body_bound) < 1.03
    assert bool((certificate.radius > 0).all())
    assert float(jacobian_norm(exported, x[0])) <= float(certificate.bound)
    steps = F.normalize(torch.randn(12, 64), dim=1) * 0.999 * certificate.radius.to(dtype)[:, None]
    assert torch.equal(exported(x + steps.view_as(x)).argmax(1), certificate.prediction)
