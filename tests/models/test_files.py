"""Every network of `models/`, small, through every format: the same values, the same bound.

The reference is torch's own output; float64 goes through the reference evaluator of ONNX, since
onnxruntime has no float64 convolutions.
"""

import contextlib
import io
import pickle

import numpy as np
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import onelip
from onelip import models
from onelip.bounds import LipLT, Product
from onelip.reading import load, read
from onelip.reading.aten.program import read_program

pytestmark = pytest.mark.usefixtures("onnx_registry_once")

SMALL_BLOCKS = ((4, 4, 2), (6, 4, 2))
IMAGE = (1, 8, 8)
FEW = ("lip_convnet", "convex_potential")  # of the new exporter; all with -m slow
NETWORKS = {
    "convex_potential": (
        lambda: models.convex_potential_network(
            IMAGE,
            10,
            conv_layers=2,
            channels=4,
            hidden_channels=4,
            pool=2,
            linear_layers=2,
            features=16,
            hidden=8,
        ),
        IMAGE,
    ),
    "mlp_head": (
        lambda: models.convex_potential_network(
            IMAGE, 10, linear_layers=2, features=64, hidden=8, head="mlp"
        ),
        IMAGE,
    ),
    "bcop": (
        lambda: models.convolutional_network(IMAGE, 10, blocks=SMALL_BLOCKS, features=(8,)),
        IMAGE,
    ),
    "lip_convnet": (
        lambda: models.lip_convnet((3, 32, 32), 10, depth=5, channels=2, activation="householder"),
        (3, 32, 32),
    ),
    "simple_convnet": (
        lambda: models.simple_convnet((3, 32, 32), 10, width=4, depth=1),
        (3, 32, 32),
    ),
    "mcnf": (
        lambda: models.mcnf(
            IMAGE, 10, blocks=((4, 3, 1, 1), (4, 4, 2, 1)), features=(8,), activation="max-min"
        ),
        IMAGE,
    ),
    "dense_critic": (lambda: models.dense_critic(5, (8, 8)), (5,)),
    "dcgan_critic": (lambda: models.dcgan_critic(IMAGE, (4, 8)), IMAGE),
    "plain_critic": (lambda: models.plain_critic(IMAGE, widths=(4, 8)), IMAGE),
    "generator": (lambda: models.dcgan_generator(IMAGE, 4, widths=(8, 4)), (4,)),
}


def exported(name):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    return onelip.export(build().eval()), shape


def inputs(shape, count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, *shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_program_and_pickle(name):
    model, shape = exported(name)
    file = io.BytesIO()
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (inputs(shape, 2),), dynamic_shapes=dynamic)
    torch.export.save(program, file)
    file.seek(0)
    program, unpickled = torch.export.load(file), pickle.loads(pickle.dumps(model))
    for count in (1, 3):
        x = inputs(shape, count)
        assert torch.equal(program.module()(x), model(x))
        assert torch.equal(unpickled(x), model(x))
    if name == "generator" or shape[-1] == 32:
        return  # nobody bounds a generator, and images of 32 x 32 take half a minute
    own, found = read(model, shape), read_program(program)
    assert float(Product().bound(found)) <= float(Product().bound(own)) * (1 + 1e-6)
    assert float(LipLT().bound(found)) <= float(LipLT().bound(own)) * (1 + 1e-6)
    assert torch.equal(onelip.lipschitz_bound(unpickled), onelip.lipschitz_bound(model))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "dynamo"),
    [
        pytest.param(
            name,
            dynamo,
            id=f"{name}-{'new' if dynamo else 'old'}",
            marks=pytest.mark.slow if dynamo and name not in FEW else [],
        )
        for name in NETWORKS
        for dynamo in (False, True)
    ],
)
def test_onnx(name, dynamo, tmp_path):
    model, shape = exported(name)
    for dtype in (torch.float32, torch.float64):
        path = tmp_path / f"{dtype}.onnx"
        model = model.to(dtype)
        settings = (
            {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
            if dynamo
            else {"dynamic_axes": {"x": {0: "batch"}}, "input_names": ["x"]}
        )
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(model, (inputs(shape, 2, dtype),), path, dynamo=dynamo, **settings)
        if dtype == torch.float32:
            session = onnxruntime.InferenceSession(path)
            close, first = 1e-4, session.get_inputs()[0].name
        else:
            session = ReferenceEvaluator(str(path))
            close, first = 1e-6 if dynamo else 1e-9, session.input_names[0]  # 1 / 3 in float32
        for count in (1, 3):
            x = inputs(shape, count, dtype)
            (found,) = session.run(None, {first: x.numpy()})
            assert np.allclose(found, model(x).numpy(), rtol=close, atol=close)
        if name != "generator" and shape[-1] < 32:
            own = float(Product().bound(read(model, shape)))
            assert float(Product().bound(load(path))) <= own * (1 + 1e-6)
