"""Weights in safetensors, with the function that builds their module."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn

import onelip
from onelip.cli import main
from onelip.errors import UsageError
from onelip.reading import load, module_with_weights

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

def number():
    return 3

def fails():
    raise KeyError("size")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_a_user.py").write_text(MODULE)
    torch.manual_seed(0)
    net = module_with_weights_of("of_a_user:Net", tmp_path)
    return tmp_path, net


def module_with_weights_of(place, folder):
    """The file of a fresh module, and the module."""
    namespace = {}
    exec(MODULE, namespace)
    net = namespace[place.partition(":")[2]]().eval()
    safetensors.torch.save_file(net.state_dict(), folder / "net.safetensors")
    return net


@pytest.mark.usefixtures("clock")
def test_weights_with_a_factory(here, capsys):
    folder, net = here
    expected = float(onelip.lipschitz_bound(net, (4,), method="lipsdp"))
    loaded = module_with_weights("net.safetensors", "of_a_user:Net")
    assert not loaded.training
    x = torch.randn(3, 4)
    assert torch.equal(loaded(x), net(x))
    chain = load("net.safetensors", factory=type(net), input_shape=(4,))
    assert float(onelip.lipschitz_bound(chain, method="lipsdp")) == pytest.approx(expected)
    line = "bound net.safetensors --factory of_a_user:Net --input-shape 4"
    line += " --methods lipsdp --seconds 4 --json"
    assert main(line.split()) == 0
    proved = json.loads(capsys.readouterr().out)["best"]
    assert proved == pytest.approx(expected, rel=1e-6)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "net.safetensors",
        "of_a_user.py",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "name the function that builds it and the shape"),
        ("--factory of_a_user:Net", "name the function that builds it and the shape"),
        ("--factory of_a_user --input-shape 4", "package.module:function"),
        ("--factory nowhere:Net --input-shape 4", "No module named 'nowhere'"),
        ("--factory of_a_user:Nit --input-shape 4", "no attribute 'Nit'"),
        ("--factory of_a_user:number --input-shape 4", "returns a int, no torch.nn.Module"),
        ("--factory of_a_user:fails --input-shape 4", "fails: KeyError: 'size'"),
        ("--factory torch.nn:Identity --input-shape 4", "holds other weights"),
        ("--factory of_a_user:Net --input-shape 4,x", "whole numbers with commas"),
        ("--factory of_a_user:Net --input-shape 5", "takes|cannot be traced"),
        ("--factory of_a_user:Net --input-shape 4 --input x", "one of each"),
    ],
)
def test_refusals_are_one_line(here, capsys, options, message):
    assert main(["bound", "net.safetensors", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert any(part in err for part in message.split("|"))


def test_a_file_that_is_none(here):
    folder, _ = here
    (folder / "bad.safetensors").write_bytes(b"\x80\x04pickle")
    for name, message in (("bad", "cannot be read as safetensors"), ("no", "does not exist")):
        with pytest.raises(UsageError, match=message):
            module_with_weights(f"{name}.safetensors", nn.Identity)
