"""Transforms of images, and the mean of networks over them."""

import pytest
import torch
from torch import nn

import onelip
from onelip.errors import UsageError
from onelip.layers import Averaged, HorizontalFlip, Shift


@pytest.mark.parametrize("down", [-3, -1, 0, 2, 5])
@pytest.mark.parametrize("right", [-4, 0, 1])
@pytest.mark.parametrize("wrap", [False, True])
def test_shifts_of_odd_images_pixel_by_pixel(down, right, wrap):
    x = torch.rand(2, 1, 5, 3)
    y = Shift(down, right, wrap=wrap)(x)
    for i in range(5):
        for j in range(3):
            a, b = i - down, j - right
            inside = 0 <= a < 5 and 0 <= b < 3
            wanted = x[:, :, a % 5, b % 3] if wrap or inside else torch.zeros(2, 1)
            assert torch.equal(y[:, :, i, j], wanted)


def test_a_shift_refuses_vectors():
    with pytest.raises(ValueError, match="shifts images"):
        Shift(1, 0)(torch.rand(2, 5))


def test_the_mean_is_that_of_all_terms():
    nets = [nn.Linear(3, 2), nn.Linear(3, 2)]
    moves = [nn.Identity(), HorizontalFlip(), nn.Sequential(HorizontalFlip(), nn.Linear(3, 3))]
    x = torch.randn(4, 3)
    terms = [net(move(x)) for net in nets for move in moves]
    mean = Averaged(nets, moves)
    assert torch.allclose(mean(x), torch.stack(terms).mean(0), atol=1e-6)


def test_networks_that_work_in_place_do_not_change_each_others_inputs():
    nets = [nn.ReLU(inplace=True), nn.Identity()]
    x = torch.tensor([[-1.0, 1.0]])
    assert torch.equal(Averaged(nets)(x), torch.tensor([[-0.5, 1.0]]))
    assert torch.equal(x, torch.tensor([[-1.0, 1.0]]))


def test_outputs_of_other_shapes_are_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 1\) and \(2, 3\)"):
        Averaged([nn.Linear(3, 1), nn.Linear(3, 3)])(torch.rand(2, 3))


def test_the_bound_is_the_mean_of_the_networks_times_that_of_the_transforms():
    scaled = [onelip.layers.Rescale(factor, trained=False) for factor in (1.0, 4.0)]
    double = onelip.layers.Rescale(3.0, trained=False)
    mean = Averaged(scaled, [nn.Identity(), double])
    assert float(onelip.lipschitz_bound(mean)) == pytest.approx(2.5 * 2, rel=1e-9)
    assert float(onelip.lipschitz_bound(mean)) >= 5
    x = torch.randn(1, 4)
    assert torch.allclose(mean(x), 5 * x)  # and it is attained


def test_no_networks_and_no_transforms_are_refused():
    for arguments in (([],), ([nn.Identity()], [])):
        with pytest.raises(UsageError, match="mean of no networks"):
            Averaged(*arguments)


def test_eval_mode_is_that_of_the_networks():
    assert not any(part.training for part in Averaged([nn.Linear(2, 2).eval()]).modules())
    assert Averaged([nn.Linear(2, 2)]).training
