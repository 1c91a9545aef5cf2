"""Networks in ONNX files compute what torch computes: both exporters, onnxruntime, float32.

The network of ``make demo`` had 76.0 % accuracy in onnxruntime where torch had 95.1 %: both
exporters drop the divisor of ``avg_pool2d(divisor_override=...)``, without a warning.
"""

import contextlib
import io
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import onelip
from onelip import layers, models
from onelip.bounds import Product
from onelip.errors import OnelipError
from onelip.layers import MaxMin
from onelip.reading import load, read
from tests.cases import LAYERS, Case

pytestmark = pytest.mark.usefixtures("onnx_registry_once")

FOURIER = ("BROConv2d", "CayleyConv2d", "FixedFourierConv2d", "LOTConv2d")
REFUSED = dict.fromkeys(FOURIER, "view_as_complex") | {"ProjectionPool2d": "hypot"}
"""Layers that the old exporter has no operators for, and the one that is missing."""


def batch(shape: tuple[int, ...], count: int) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


def onnx_file(model: nn.Module, shape: tuple[int, ...], path: Path, *, dynamo: bool) -> Path:
    x = batch(shape, 2)
    with contextlib.redirect_stdout(io.StringIO()):  # the old exporter prints its graph on errors
        if dynamo:
            dynamic = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
        else:
            axes = {"x": {0: "batch"}}
            torch.onnx.export(model, (x,), path, dynamo=False, dynamic_axes=axes, input_names=["x"])
    return path


UNREAD = (
    *("CurvePool2d", "Householder-2", "Householder-3", "LipschitzExtension"),
    *("MeanSquareResidual", *FOURIER),
)
"""Roots of squares, distances to curves or points, arc tangents and Fourier transforms: they have
to come as .pt2."""
LOOSER = ("Averaged", "Concatenated", "Sandwich", "Split")  # ways are counted one by one


def check_bound(case: Case, model: nn.Module, path: Path) -> None:
    """The file has the product of norms of the module."""
    if case.id.startswith(UNREAD):
        with pytest.raises(OnelipError):
            load(path)
        return
    own, found = (
        float(Product().bound(read(model, case.input_shape))),
        float(Product().bound(load(path))),
    )
    if case.id.startswith(LOOSER):
        assert found >= own
    else:
        assert found <= own * (1 + 1e-6)  # below it where a file's small maps are written out


def check(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    for count in (1, 3):
        x = batch(shape, count)
        (found,) = session.run(None, {name: x.numpy()})
        expected = model(x).numpy()
        assert found.shape == expected.shape
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)


def kind_of(case: Case) -> str:
    return case.id.split("-")[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
def test_layers_by_the_old_exporter(case: Case, tmp_path: Path):
    model = onelip.export(case.build().eval())
    path = tmp_path / "layer.onnx"
    if kind_of(case) in REFUSED:
        missing = REFUSED[kind_of(case)]
        with pytest.raises(torch.onnx.errors.UnsupportedOperatorError, match=missing):
            onnx_file(model, case.input_shape, path, dynamo=False)
        return
    if kind_of(case) == "Accumulated":  # its casts of weights need the new exporter
        with pytest.raises(RuntimeError, match="Jitted modules"):
            onnx_file(model, case.input_shape, path, dynamo=False)
        return
    check(model, case.input_shape, onnx_file(model, case.input_shape, path, dynamo=False))
    check_bound(case, model, path)


def first_of_each_kind() -> list[Case]:
    """One layer for each tree of modules that the first rows of all classes are exported to.

    The exporter sees nothing else of a layer: the convolution that AOC, BCOP and RKO become is one.
    """
    first = {kind_of(case): case for case in reversed(LAYERS)}
    trees: dict[tuple[type[nn.Module], ...], Case] = {}
    for case in first.values():
        modules = onelip.export(case.build().eval()).modules()
        trees.setdefault(tuple(type(module) for module in modules), case)
    return list(trees.values())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", first_of_each_kind(), ids=lambda case: case.id)
def test_layers_by_the_new_exporter(case: Case, tmp_path: Path):
    model = onelip.export(case.build().eval())
    path = tmp_path / "layer.onnx"
    unknown = {"ProjectionPool2d": "hypot", "LipschitzExtension": "_cdist_forward"}
    if kind_of(case) in unknown:
        with pytest.raises(torch.onnx.errors.OnnxExporterError, match=unknown[kind_of(case)]):
            onnx_file(model, case.input_shape, path, dynamo=True)
        return
    check(model, case.input_shape, onnx_file(model, case.input_shape, path, dynamo=True))
    check_bound(case, model, path)


NETWORKS = {
    "digits": (partial(models.cpl_digits, (1, 8, 8), 10), (1, 8, 8)),
    "pools": (
        lambda: nn.Sequential(
            layers.ConvexPotentialConv2d(2, 3, image_size=9),
            layers.ScaledAvgPool2d(3),
            layers.BCOPConv2d(2, 4, 3),
            MaxMin(),
            layers.ScaledL2NormPool2d(3, 1),
            nn.Flatten(),
            layers.UnitNormLinear(4, 3),
        ),
        (2, 9, 9),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["old", "new"])
@pytest.mark.parametrize(("build", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_networks(build, shape, dynamo, tmp_path: Path):
    model = onelip.export(build().eval())
    check(model, shape, onnx_file(model, shape, tmp_path / "network.onnx", dynamo=dynamo))
