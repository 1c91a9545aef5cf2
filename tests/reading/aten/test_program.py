"""Exported programs and their files."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading import load, read, read_program
from tests.reading.checks import check, naive, opaque
from tests.reading.networks import NETWORKS, SHAPE, build


def _export(model: nn.Module, *shape: int, batch: int = 1, dynamic: bool = False):
    sizes = ({0: torch.export.Dim("batch")},) if dynamic else None
    example = torch.zeros(batch, *shape, dtype=next(model.parameters(), torch.empty(())).dtype)
    return torch.export.export(model, (example,), dynamic_shapes=sizes)


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    model = build(name).double()
    torch.export.save(_export(model, *SHAPE), tmp_path / "net.pt2")
    check(load(tmp_path / "net.pt2"), model, SHAPE)


@pytest.mark.parametrize("name", ["lenet", "resnet"])
def test_dynamic_batch_in_single_precision(name: str) -> None:
    model = build(name)
    chain = read_program(_export(model, *SHAPE, batch=2, dynamic=True))
    x = torch.rand(4, *SHAPE)
    torch.testing.assert_close(chain.forward(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["strided", "resnet"])
def test_core_operators(name: str) -> None:
    model = build(name).double()
    check(read_program(_export(model, *SHAPE).run_decompositions()), model, SHAPE)


def test_what_is_opaque() -> None:
    assert opaque(read_program(_export(build("strided"), *SHAPE))) == []
    assert opaque(read_program(_export(build("lenet"), *SHAPE))) == ["MaxPool2d"] * 2
    assert opaque(read_program(_export(build("resnet"), *SHAPE))) == ["Ways", "Ways"]


def test_the_same_chain_as_that_of_the_modules() -> None:
    model = build("lenet").network.double()
    modules, program = read(model, SHAPE), read_program(_export(model, *SHAPE))
    assert len(modules.blocks) == len(program.blocks)
    assert naive(modules.exact()) == pytest.approx(naive(program.exact()), rel=1e-12)


def test_maps_hold_the_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    assert read_program(_export(model, 3)).last.weight is model[0].weight


class _Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.inner = function, nn.Linear(4, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner(x))


def _in_place(x: Tensor) -> Tensor:
    y = x.relu_()
    return x + y


FUNCTIONS = {
    "in-place": _in_place,
    "relu6": F.relu6,
    "celu": lambda x: F.celu(x, 0.5),
    "selu": F.selu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.7),
    "softshrink": lambda x: F.softshrink(x, 0.1),
    "log-sigmoid": F.logsigmoid,
    "abs": torch.abs,
    "erf": torch.erf,
    "silu-by-hand": lambda x: torch.sigmoid(x) * x,
    "mish-by-hand": lambda x: x * torch.tanh(F.softplus(x)),
    "gelu-by-hand": lambda x: 0.5 * x.mul(1 + torch.erf(x / 2**0.5)),
    "scalars": lambda x: (2 - x * 3 - 1 / 3) / 0.7 + 1.5,
    "tensors": lambda x: torch.ones(1, 4).double() - x / torch.tensor([3.0, 0.1, -2.0, 1.0]),
    "alpha": lambda x: torch.add(x, x.relu(), alpha=-2),
    "negative": lambda x: -x.relu() - x,
    "shapes": lambda x: x.view(-1, 2, 2).transpose(1, 2).unsqueeze(-1).squeeze(-1).flatten(1),
    "permute": lambda x: x.reshape(-1, 2, 1, 2).permute(0, 3, 1, 2).reshape(x.shape[0], -1),
    "parts": lambda x: torch.cat([x[:, 2:], x.relu(), x[:, :1]], 1)[:, ::2],
    "constants-beside": lambda x: torch.cat([torch.ones(x.shape[0], 1).double(), x], 1),
    "select": lambda x: x.view(-1, 2, 2)[:, 1],
    "pads": lambda x: F.pad(x.view(-1, 1, 2, 2), (1, 0, -1, 2)),
    "wraps": lambda x: F.pad(x.view(-1, 1, 2, 2), (1, 2, 0, 1), mode="circular"),
    "shuffle": lambda x: F.pixel_shuffle(x.view(-1, 4, 1, 1), 2),
    "global-mean": lambda x: x.view(-1, 1, 2, 2).mean((2, 3)),
    "mean-of-sequence": lambda x: x.view(-1, 2, 2).mean(-1, keepdim=True),
    "matrix": lambda x: x @ torch.ones(4, 2).double(),
    "conv1d": lambda x: F.conv1d(x.view(-1, 2, 2), torch.ones(3, 2, 1).double(), padding=1),
    "dropout": lambda x: F.dropout(x, training=False),
    "double": lambda x: x.to(torch.float64).contiguous().clone(),
    "nothing": lambda x: x,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_functions(function) -> None:
    model = _Function(function)
    slack = 1e-7 if function is F.hardsigmoid else 1e-10  # torch's gradient is 3e-8 too large
    check(read_program(_export(model, 4)), model, (4,), slack)


REFUSED = {
    "attention": (lambda x: (x.T @ x).tanh(), "from the right|no Lipschitz"),
    "gate": (lambda x: x * x.tanh(), "node 'mul' .*product of two values"),
    "other-gate": (lambda x: x * (2 * x).sigmoid(), "node 'mul.*product of two values"),
    "almost-gelu": (lambda x: x * (2 + torch.erf(x / 2**0.5)), "product of two values"),
    "division": (lambda x: 1 / x, "no Lipschitz|depends on the input"),
    "square": (lambda x: x**2, "node 'pow_1': a product of two values.*no global"),
    "where": (lambda x: torch.where(x > 0, x, -x), "jump"),
    "round": (lambda x: x.to(torch.int64).double(), "jumps"),
    "dropout": (lambda x: F.dropout(x, training=True), "random in training"),
    "transposed": (
        lambda x: F.conv_transpose1d(x.view(1, 1, 4), torch.ones(1, 1, 2).double()),
        "conv_transpose1d",
    ),
    "border": (
        lambda x: F.avg_pool2d(x.view(1, 1, 2, 2), 2, padding=1, count_include_pad=False),
        "count_include_pad",
    ),
    "twice": (lambda x: x[:, [0, 0]], "index"),
}


@pytest.mark.parametrize(("function", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(function, message: str) -> None:
    with pytest.raises(UnboundedModuleError, match=message) as caught:
        read_program(_export(_Function(function), 4))
    assert "node '" in str(caught.value)


MISUSED = {
    "batch": (lambda x: x.reshape(-1), "node 'reshape.*one output for each|node 'view"),
    "permuted": (lambda x: x.T, "numpy_T|batch|no Lipschitz"),
    "squeezed": (lambda x: x.squeeze(0), "squeezes the batch"),
    "beside": (lambda x: torch.cat([x, x], 0), "along the batch"),
    "larger": (lambda x: x + torch.ones(3, 4).double(), "make a larger one"),
}


@pytest.mark.parametrize(("function", "message"), MISUSED.values(), ids=MISUSED.keys())
def test_the_batch_stays_the_batch(function, message: str) -> None:
    with pytest.raises((UsageError, UnboundedModuleError), match=message):
        read_program(_export(_Function(function), 4))


def test_batch_normalisation_in_training_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    with pytest.raises((UnboundedModuleError, UsageError), match=r"model.eval\(\)"):
        read_program(_export(model, 4, batch=2, dynamic=True))


def test_batch_of_two() -> None:
    with pytest.raises(UsageError, match="batch of 2"):
        read_program(_export(nn.Linear(4, 4), 4, batch=2))


def test_dynamic_images() -> None:
    model = nn.Conv2d(1, 1, 1)
    sizes = ({3: torch.export.Dim("width")},)
    program = torch.export.export(model, (torch.zeros(1, 1, 4, 4),), dynamic_shapes=sizes)
    with pytest.raises(UsageError, match="only the batch may be dynamic"):
        read_program(program)


class _Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, y


class _Outputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, 2 * x


class _Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(1, 2)


def test_other_than_one_input_and_one_output() -> None:
    example = torch.zeros(1, 2)
    with pytest.raises(UsageError, match="one input can be read, this one has 2"):
        read_program(torch.export.export(_Two(), (example, example)))
    with pytest.raises(UsageError, match="one output can be read, this one has 2"):
        read_program(torch.export.export(_Outputs(), (example,)))
    with pytest.raises(UsageError, match="does not depend on the input"):
        read_program(torch.export.export(_Constant(), (example,)))
    with pytest.raises(UsageError, match="floating-point"):
        read_program(torch.export.export(nn.Identity(), (example.long(),)))


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense " * 100])
def test_files_that_are_none(tmp_path: Path, suffix: str, content: bytes | None) -> None:
    path = tmp_path / f"net{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="does not exist" if content is None else "cannot be read"):
        load(path)


def test_one_line(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"nonsense")
    with pytest.raises(UsageError) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no .pt2 or .onnx or .safetensors file"):
        load(tmp_path / "net.pth")
