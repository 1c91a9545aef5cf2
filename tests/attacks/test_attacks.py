"""Attacks on a linear classifier, where the truth is known."""

import builtins

import numpy as np
import pytest
import torch
from torch import nn

from onelip.attacks import APGD, ATTACKS, FGM, FMN, PGD, Boundary, Pointwise, Square, judge
from onelip.errors import UsageError

FOOLBOX = [PGD(steps=5, restarts=2), FGM(), FMN(steps=5), Boundary(steps=30), Pointwise()]
OWN = [APGD(steps=5, restarts=2), APGD("cross-entropy", 0, 5), Square(queries=20)]
QUICK = [*FOOLBOX, *OWN]
IDS = [method.name for method in QUICK]


def outcome(method, linear, row, factor):
    """Whether ``method`` succeeds on one image at ``factor`` times its distance."""
    images, labels = linear.images[row : row + 1], linear.labels[row : row + 1]
    eps = factor * linear.distance[row].item()
    candidates = method(linear.model, images, labels, eps)
    return judge(linear.model, images, labels, candidates, eps).success.item()


def test_pgd_finds_the_exact_distance_and_never_less(linear):
    for row in range(len(linear.images)):
        assert outcome(PGD(), linear, row, 1.001)
        assert not outcome(PGD(restarts=3), linear, row, 0.999999)


def test_cross_entropy_succeeds_a_little_further_out(linear):
    """It also pushes towards the third class, so its best direction is not the shortest one."""
    method = PGD(loss="cross-entropy")
    assert all(outcome(method, linear, row, 1.5) for row in range(8))
    assert not any(outcome(method, linear, row, 0.999999) for row in range(8))


def test_one_gradient_step_crosses_two_classes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    images = torch.full((1, 1, 2, 2), 0.5)
    with torch.no_grad():
        model[1].bias += torch.tensor([0.1, 0.0]) - model(images)[0]
        distance = 0.1 / (model[1].weight[0] - model[1].weight[1]).norm().item()
    labels = torch.zeros(1, dtype=torch.int64)
    for loss in ("cross-entropy", "margin"):
        for factor, expected in ((0.999, False), (1.001, True)):
            eps = factor * distance
            candidates = FGM(loss)(model, images, labels, eps)
            assert judge(model, images, labels, candidates, eps).success.item() is expected


@pytest.mark.parametrize(
    ("method", "factor"),
    [(Boundary(steps=1500), 6), (Pointwise(), 20)],
    ids=["boundary", "pointwise"],
)
def test_decision_based_attacks_come_close_and_never_closer(linear, method, factor):
    candidates = method(linear.model, linear.images, linear.labels, 0.0)
    result = judge(linear.model, linear.images, linear.labels, candidates, eps=4.0)
    assert result.success.all()
    assert (result.distance >= linear.distance * (1 - 1e-9)).all()
    assert (result.distance < factor * linear.distance).all()


@pytest.mark.parametrize("method", QUICK, ids=IDS)
def test_candidates_are_reproducible_and_leave_the_random_state_alone(linear, method):
    torch.manual_seed(1)
    np.random.seed(1)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = method(linear.model, linear.images, linear.labels, 0.1)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(first, method(linear.model, linear.images, linear.labels, 0.1))


def test_the_seed_decides(linear):
    first, second = (
        PGD(steps=1, seed=seed)(linear.model, linear.images, linear.labels, 0.01) for seed in (0, 1)
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize("method", QUICK, ids=IDS)
def test_the_model_is_left_as_it_was(linear, method):
    linear.model.train()
    method(linear.model, linear.images, linear.labels, 0.1)
    assert linear.model.training
    assert all(parameter.grad is None for parameter in linear.model.parameters())


@pytest.mark.parametrize("method", QUICK, ids=IDS)
def test_gradients_may_be_switched_off_outside(linear, method):
    expected = method(linear.model, linear.images, linear.labels, 0.1)
    with torch.no_grad():
        assert torch.equal(method(linear.model, linear.images, linear.labels, 0.1), expected)


@pytest.mark.parametrize("method", [Boundary(steps=30), Pointwise()], ids=["boundary", "pointwise"])
def test_images_wrong_from_the_start_do_not_crash_the_batch(linear, method):
    labels = linear.labels.clone()
    labels[:3] = (labels[:3] + 1) % 3
    candidates = method(linear.model, linear.images, labels, 4.0)
    result = judge(linear.model, linear.images, labels, candidates, eps=4.0)
    assert torch.equal(candidates[:3], linear.images[:3])
    assert result.success.all()
    assert not (candidates[3:] == linear.images[3:]).flatten(1).all(1).any()


@pytest.mark.parametrize("method", [Boundary(steps=5), Pointwise()], ids=["boundary", "pointwise"])
def test_images_without_a_start_come_back_clean(linear, fixed, method):
    images = linear.images.float()
    for labels in (torch.zeros(8, dtype=torch.int64), torch.tensor([0, 1] * 4)):
        assert torch.equal(method(fixed, images, labels, 1.0), images)


@pytest.mark.parametrize("method", QUICK, ids=IDS)
def test_a_model_of_nan_logits_crashes_nothing(linear, method):
    class Broken(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :3] * float("nan")

    candidates = method(Broken(), linear.images, linear.labels, 0.1)
    assert judge(Broken(), linear.images, linear.labels, candidates, 0.1).success.all()


@pytest.mark.parametrize("method", QUICK, ids=IDS)
def test_no_images(linear, method):
    empty = method(linear.model, linear.images[:0], linear.labels[:0], 0.1)
    assert empty.shape == (0, 1, 4, 4)


@pytest.mark.parametrize("method", QUICK, ids=IDS)
def test_single_precision(linear, method):
    candidates = method(linear.model.float(), linear.images.float(), linear.labels, 0.1)
    assert candidates.dtype == torch.float32


@pytest.mark.parametrize("method", QUICK, ids=IDS)
def test_wrong_images(linear, method):
    with pytest.raises(UsageError, match=r"images lie outside \[0, 1\]"):
        method(linear.model, linear.images + 1, linear.labels, 0.1)


def test_wrong_settings():
    with pytest.raises(UsageError, match="unknown loss 'hinge': choose one of margin, cross-"):
        PGD(loss="hinge")
    with pytest.raises(UsageError, match="unknown loss 'hinge'"):
        FGM(loss="hinge")
    with pytest.raises(UsageError, match="at least one step and one restart"):
        PGD(steps=0)
    with pytest.raises(UsageError, match="at least one step: choose"):
        Boundary(steps=0)


def test_registry():
    for name, build in ATTACKS.items():
        methods = build(7, 2)
        assert {method.name for method in methods} == {name} or name == "auto"
        for method in methods if name not in ("auto", "boundary") else ():
            assert getattr(method, "steps", 7) == 7
            assert getattr(method, "restarts", 2) == 2
    assert [method.name for method in ATTACKS["auto"](7, 2)] == [
        "fmn",
        "apgd-ce",
        "apgd-t",
        "square",
    ]


@pytest.mark.parametrize("method", FOOLBOX, ids=[method.name for method in FOOLBOX])
def test_missing_foolbox_names_the_extra(linear, method, monkeypatch):
    original = builtins.__import__

    def without_foolbox(name, *args, **kwargs):
        if name == "foolbox":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_foolbox)
    with pytest.raises(UsageError, match=r"foolbox is not installed: .*onelip\[attacks\]"):
        method(linear.model, linear.images, linear.labels, 0.1)
