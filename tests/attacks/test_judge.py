"""The judge believes nobody: neither the attack's candidates nor its verdict."""

import itertools

import pytest
import torch
from torch import nn

from onelip.attacks import judge
from onelip.errors import UsageError


class Threshold(nn.Module):
    """Class 1 if the first pixel exceeds one half."""

    def forward(self, images):
        pixel = images.flatten(1)[:, 0]
        return torch.stack([torch.zeros_like(pixel), pixel - 0.5], dim=1)


def grey(count: int = 1, value: float = 0.4, dtype: torch.dtype = torch.float32):
    return torch.full((count, 1, 4, 4), value, dtype=dtype), torch.zeros(count, dtype=torch.int64)


def moved(images, by):
    candidates = images.clone()
    candidates[:, 0, 0, 0] += by
    return candidates


def test_a_candidate_in_the_ball_stays_as_it_is():
    images, labels = grey()
    candidates = moved(images, 0.2)
    result = judge(Threshold(), images, labels, candidates, eps=0.3)
    assert torch.equal(result.adversarial, candidates)
    assert result.success.tolist() == [True]
    assert result.distance.dtype == torch.float64
    assert result.distance.item() == pytest.approx(0.2, abs=1e-7)


def test_a_candidate_outside_the_ball_is_moved_inside():
    images, labels = grey()
    result = judge(Threshold(), images, labels, moved(images, 0.2), eps=0.05)
    assert result.success.tolist() == [False]
    assert result.distance.item() == pytest.approx(0.05, rel=1e-5)
    assert result.distance.item() <= 0.05


def test_shrinking_can_leave_a_success():
    images, labels = grey()
    result = judge(Threshold(), images, labels, moved(images, 0.6), eps=0.11)
    assert result.success.tolist() == [True]


def test_rounding_never_leaves_the_ball(each):
    for dtype, eps in each(
        itertools.product(
            [torch.float64, torch.float32, torch.float16, torch.bfloat16],
            [0.0, 1e-30, 1e-9, 1e-7, 1e-3, 36 / 255, 1.0],
        )
    ):
        torch.manual_seed(0)
        images = torch.rand(50, 3, 8, 8).to(dtype)
        labels = torch.zeros(50, dtype=torch.int64)
        candidates = images + torch.randn(50, 3, 8, 8).to(dtype) * 10.0 ** torch.randint(
            -9, 3, (1,)
        )
        result = judge(nn.Sequential(nn.Flatten(), Classes()), images, labels, candidates, eps)
        exact = (result.adversarial.double() - images.double()).flatten(1).norm(dim=1)
        assert result.adversarial.dtype == dtype
        assert (exact <= eps).all()
        assert torch.allclose(exact, result.distance, rtol=1e-12, atol=0)
        assert ((result.adversarial >= 0) & (result.adversarial <= 1)).all()


class Classes(nn.Module):
    def forward(self, features):
        return features[:, :10]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_candidate_that_is_not_finite_counts_as_clean(value):
    images, labels = grey(2)
    candidates = moved(images, 0.3)
    candidates[0, 0, 3, 3] = value
    result = judge(Threshold(), images, labels, candidates, eps=0.5)
    assert torch.equal(result.adversarial[0], images[0])
    assert result.success.tolist() == [False, True]
    assert result.distance[0] == 0


def test_huge_candidates_do_not_overflow():
    images, labels = grey(dtype=torch.float64)
    result = judge(Threshold(), images, labels, moved(images, 1e300), eps=0.2)
    assert result.distance.item() <= 0.2
    assert result.adversarial.isfinite().all()


def test_a_nan_logit_is_a_success():
    class Broken(nn.Module):
        def forward(self, images):
            return images.new_tensor([1.0, float("nan")]).expand(len(images), 2)

    images, _ = grey(2)
    for label in (0, 1):
        labels = torch.full((2,), label)
        assert judge(Broken(), images, labels, images, eps=0.0).success.all()


def test_pixels_are_clamped():
    images, labels = grey(value=1.0)
    result = judge(Threshold(), images, labels, images + 5, eps=1.0)
    assert torch.equal(result.adversarial, images)
    assert result.distance.item() == 0


def test_the_model_is_judged_in_evaluation_mode():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 2))
    model[2].eval()
    images, labels = torch.rand(6, 1, 4, 4), torch.zeros(6, dtype=torch.int64)
    mean = model[1].running_mean.clone()
    first, second = (judge(model, images, labels, images, 0.0).success for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(model[1].running_mean, mean)
    assert [module.training for module in model] == [True, True, False, True]


def test_batches_do_not_matter():
    images, labels = grey(10)
    candidates = images + torch.linspace(0, 0.3, 10).view(-1, 1, 1, 1)
    whole, parts = (
        judge(Threshold(), images, labels, candidates, eps=2.0, batch_size=size)
        for size in (512, 3)
    )
    assert torch.equal(whole.success, parts.success)
    assert 0 < whole.success.sum() < 10


def test_no_images():
    result = judge(Threshold(), *grey(0), torch.empty(0, 1, 4, 4), eps=1.0)
    assert (len(result.adversarial), len(result.success), len(result.distance)) == (0, 0, 0)


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_wrong_radius(eps):
    images, labels = grey()
    with pytest.raises(UsageError, match=r"eps is .*: choose a finite number, 0 or more"):
        judge(Threshold(), images, labels, images, eps)


def test_wrong_tensors():
    images, labels = grey(2)
    model = Threshold()
    with pytest.raises(UsageError, match=r"candidates of shape \(1, 1, 4, 4\) do not match"):
        judge(model, images, labels, images[:1], 1.0)
    with pytest.raises(UsageError, match="labels must be int64, one per image"):
        judge(model, images, labels[:1], images, 1.0)
    with pytest.raises(UsageError, match=r"images are torch\.uint8: convert them to floats"):
        judge(model, images.byte(), labels, images.byte(), 1.0)
    for value in (1.5, -0.5, float("nan")):
        with pytest.raises(UsageError, match=r"images lie outside \[0, 1\]"):
            judge(model, torch.full_like(images, value), labels, images, 1.0)
    with pytest.raises(UsageError, match=r"the model returns shape \(2, 1, 4, 4\)"):
        judge(nn.Identity(), images, labels, images, 1.0)
