"""Singular values of every layer of an exported network."""

import pytest
import torch
from torch import nn

from onelip import export
from onelip.cli import main
from onelip.experiments.classification.singular_values import singular_values
from onelip.layers import AOCConv2d, CholeskyLinear, MaxMin
from tests.oracles import materialised


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (2, 1), (4, 2), (3, 2), (3, 3)])
def test_circular_convolutions_are_those_of_the_matrix(kernel_size, stride):
    torch.manual_seed(0)
    padding = "same" if stride == 1 else (kernel_size - stride + 1) // 2
    conv = nn.Conv2d(
        2, 3, kernel_size, stride=stride, padding=padding, padding_mode="circular", bias=False
    ).double()
    (found,) = singular_values(nn.Sequential(conv), (2, 6, 6)).values()
    expected = torch.linalg.svdvals(materialised(conv, (2, 6, 6)).detach())
    torch.testing.assert_close(found.sort().values, expected.sort().values, atol=1e-10, rtol=0)


def test_every_layer_by_name_and_nothing_else():
    model = nn.Sequential(
        AOCConv2d(1, 4, 2, stride=2), MaxMin(), nn.Flatten(), CholeskyLinear(16, 3)
    )
    found = singular_values(export(model), (1, 4, 4))
    assert list(found) == ["0.conv Conv2d", "3 Linear"]
    for values in found.values():
        torch.testing.assert_close(values, torch.ones_like(values), atol=1e-6, rtol=0)


def test_from_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    options = "--epochs 1 --attack-samples 0 --quiet --model kw_small --network.features [20]"
    assert main(["train", "digits", *options.split(), "--out", str(run)]) == 0
    assert main(["plot", str(run), "--singular-values"]) == 0
    assert (run / "singular-values.png").stat().st_size > 1000
    assert "singular_values" in (run / "metrics.json").read_text()
    assert main(["plot", str(run), str(run), "--singular-values"]) == 2
    assert "draws one run" in capsys.readouterr().err
