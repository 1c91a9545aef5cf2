"""The generator and the plain critic: shapes, ranges, and draws that leave no trace."""

import copy
import math

import pytest
import torch
from torch import nn

from onelip.errors import UsageError
from onelip.models import dcgan_generator, generate, latent_features, plain_critic


@pytest.mark.parametrize(
    ("shape", "widths"),
    [((1, 8, 8), (4, 3)), ((3, 32, 32), (8, 4)), ((2, 12, 20), (5, 3)), ((1, 6, 4), (3,))],
)
@pytest.mark.parametrize("mode", [True, False])
def test_images_have_the_shape_and_lie_in_the_unit_interval(shape, widths, mode):
    generator = dcgan_generator(shape, 7, widths=widths).train(mode)
    images = generator(30 * torch.randn(9, 7))
    assert images.shape == (9, *shape)
    assert 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e6])
def test_images_stay_in_the_unit_interval_whatever_the_weights(scale):
    generator = dcgan_generator((1, 8, 8), 5, widths=(3, 2))
    for weight in generator.parameters():
        weight.data.mul_(scale)
    images = generate(generator, 4)
    assert images.isfinite().all()
    assert 0 <= images.min() <= images.max() <= 1


def test_the_generator_of_mnist_is_small_enough_to_be_committed():
    generator = dcgan_generator((1, 28, 28))
    assert sum(weight.numel() for weight in generator.state_dict().values()) * 4 < 1.3e6


def test_each_output_pixel_depends_on_the_noise():
    generator = dcgan_generator((1, 12, 12), 3, widths=(3, 2)).double().eval()
    slopes = torch.autograd.functional.jacobian(generator, torch.randn(1, 3).double())
    assert (slopes.reshape(144, 3).abs().amax(1) > 0).all()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 30, 28), {}, "4 does not divide 30 x 28; pass fewer widths"),
        ((1, 28, 30), {}, "4 does not divide 28 x 30"),
        ((1, 8, 8), {"latent": 0}, "latent=0"),
        ((0, 8, 8), {}, "must be positive"),
        ((1, 8, 8), {"widths": ()}, "must be positive"),
        ((1, 8, 8), {"widths": (4, 0)}, "must be positive"),
    ],
)
def test_a_generator_that_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(UsageError, match=message):
        dcgan_generator(shape, **options)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 5), (2, 4, 4)])
def test_the_plain_critic_gives_one_number_an_image_from_that_image_alone(shape):
    critic = plain_critic(shape, widths=(3, 2)).double()
    images = torch.rand(6, *shape).double()
    together = critic(images)
    assert together.shape == (6, 1)
    alone = torch.cat([critic(image[None]) for image in images])
    assert torch.allclose(together, alone, rtol=1e-12)


def test_a_plain_critic_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="pass fewer widths"):
        plain_critic((1, 8, 3), widths=(4, 4))
    with pytest.raises(UsageError, match="must be positive"):
        plain_critic((1, 8, 8), widths=())


def test_latent_features_are_those_of_the_first_dense_layer():
    assert latent_features(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))) == 3
    with pytest.raises(UsageError, match="begin it with one"):
        latent_features(nn.ReLU())


def test_draws_are_a_function_of_the_seed_and_leave_no_trace():
    generator = dcgan_generator((1, 8, 8), 4, widths=(3, 2)).train()
    before, state = copy.deepcopy(generator.state_dict()), torch.get_rng_state()
    first, again = generate(generator, 10, seed=3), generate(generator, 10, seed=3, batch=3)
    assert torch.allclose(first, again, atol=1e-6)
    assert not torch.allclose(first, generate(generator, 10, seed=4), atol=1e-3)
    assert generator.training
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_draws_use_running_statistics():
    generator = dcgan_generator((1, 8, 8), 4, widths=(3, 2))
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    expected = copy.deepcopy(generator).eval()(noise)
    assert torch.equal(generate(generator, 5, seed=2), expected)


def test_no_images_are_refused():
    with pytest.raises(UsageError, match="count=0"):
        generate(dcgan_generator((1, 8, 8)), 0)
    assert math.prod(generate(dcgan_generator((1, 8, 8)), 1).shape) == 64
