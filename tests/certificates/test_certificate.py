"""A certificate as text, as a dictionary and as a table: nothing rounded up, nothing left out."""

import json
import re
import sys

import pytest
import torch
from torch import nn

import onelip
from onelip.errors import UsageError


@pytest.fixture
def certificate():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    return onelip.certify(model, torch.rand(41, 1, 2, 2))


def test_five_lines_that_say_no_more_than_is_proved(certificate):
    count, bounds, radii, how, holds = str(certificate).splitlines()
    assert count == "41 samples, 41 with a radius above 0"
    for number, bound in zip(
        re.findall(r"\d+\.\d+", bounds), (certificate.bound, certificate.body_bound), strict=True
    ):
        assert float(bound) <= float(number) <= float(bound) + 1e-8
    assert how == "method product, head pairwise, level real, logits in float32 on cpu"
    assert "the logits as computed" in holds
    printed = dict(re.findall(r"(median|\d+ %) ([\d.]+)", radii))
    assert [*printed] == ["median", "5 %", "25 %", "75 %", "95 %"]
    shares = {"median": 0.5, "5 %": 0.05, "25 %": 0.25, "75 %": 0.75, "95 %": 0.95}
    for name, share in shares.items():  # so many samples have at least the radius that is printed
        reached = float((certificate.radius >= float(printed[name])).double().mean())
        assert 1 - share <= reached <= 1 - share + 2 / 41


@pytest.mark.parametrize("count", [0, 1])
def test_few_samples(count):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    text = str(onelip.certify(model, torch.rand(count, 1, 2, 2)))
    assert text.startswith(f"{count} samples")
    assert len(text.splitlines()) == 5


def test_the_level_is_said(certificate):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    text = str(onelip.certify(model, torch.rand(3, 1, 2, 2), level="float"))
    assert "level float" in text
    assert text.endswith("the rounding of its forward pass included")


def test_a_dictionary_and_a_table_hold_the_same_numbers(certificate):
    stored = json.loads(json.dumps(certificate.to_dict()))
    assert stored["radius"] == certificate.radius.tolist()
    assert stored["prediction"] == certificate.prediction.tolist()
    assert stored["bound"] == float(certificate.bound)
    assert stored["layer_bounds"] == dict(certificate.layer_bounds)
    pytest.importorskip("pandas")
    frame = certificate.to_dataframe()
    assert frame["radius"].tolist() == certificate.radius.tolist()
    assert frame["prediction"].tolist() == certificate.prediction.tolist()
    samples = {"radius": stored["radius"], "prediction": stored["prediction"]}
    assert frame.attrs | samples == stored


def test_a_table_without_pandas_is_one_line(certificate, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"^pandas is not installed: pip install pandas$"):
        certificate.to_dataframe()
