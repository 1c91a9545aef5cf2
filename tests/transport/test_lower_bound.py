"""Lower bounds of Wasserstein-1: known answers, sandwiches, and what must be refused."""

import dataclasses

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.models import dcgan_critic, dense_critic
from onelip.transport import (
    TASKS,
    CriticTraining,
    exact_distance,
    judge,
    split,
    wasserstein_lower_bound,
)


@pytest.mark.parametrize("name", TASKS)
def test_known_distances_are_reached_and_never_exceeded(name):
    task = TASKS[name]
    steps = 500 if name == "three-cones" else 150
    found = wasserstein_lower_bound(*task.sample(20_000), steps=steps, batch=128)
    assert found.lower <= task.distance
    assert found.value > 0.95 * task.distance
    assert found.upper >= found.value >= found.lower


@pytest.mark.parametrize("linear", ["aol", "bjorck", "bro", "cayley", "cholesky"])
@pytest.mark.parametrize("activation", ["relu", "max-min", "full-sort"])
def test_no_dense_family_exceeds_the_exact_distance_of_the_same_samples(linear, activation):
    torch.manual_seed(0)
    p, q = torch.randn(60, 3), 0.5 * torch.randn(60, 3) + 0.3
    critic = dense_critic(3, (16, 16), linear=linear, activation=activation)
    CriticTraining(critic, p, q, steps=150, batch=60).run()  # chosen on the very samples
    found = judge(critic, p, q)
    assert found.value <= exact_distance(p, q)
    assert found.value > 0.2 * exact_distance(p, q)


FAMILIES = ["aoc", "aol", "bcop", "cayley", "cpl", "liresnet", "ossn", "rko", "sll", "soc", "svcm"]


@pytest.mark.parametrize("convolution", FAMILIES)
def test_no_convolutional_family_exceeds_the_exact_distance_of_the_same_samples(convolution):
    torch.manual_seed(0)
    p, q = torch.rand(20, 1, 8, 8), 0.7 * torch.rand(20, 1, 8, 8)
    critic = dcgan_critic((1, 8, 8), (4, 8), convolution=convolution)
    CriticTraining(critic, p, q, steps=30, batch=20).run()
    found = judge(critic, p, q)
    assert 0.2 * exact_distance(p, q) < found.value <= exact_distance(p, q)


def test_scores_are_divided_by_the_proved_constant():
    stretching = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        stretching[1].weight.copy_(torch.tensor([[-30.0, -40.0]]))
    p, q = torch.zeros(5, 2), torch.tensor([[3.0, 4.0]]).expand(7, 2).clone()
    found = judge(stretching, p, q)
    assert found.constant == pytest.approx(50)
    assert found.samples == (5, 7)
    assert 5 - 1e-6 < found.value <= 5


def test_a_constant_critic_proves_nothing_and_divides_by_nothing():
    critic = nn.Linear(2, 1)
    nn.init.zeros_(critic.weight)
    found = judge(critic, torch.zeros(4, 2), torch.ones(4, 2))
    assert -1e-12 < found.value <= 0


def test_the_critic_is_judged_on_samples_that_it_has_not_seen():
    """Noise against the same noise: the distance is 0, but on its own samples a critic sees 1."""
    torch.manual_seed(0)
    p, q = torch.randn(60, 40), torch.randn(60, 40)
    found = wasserstein_lower_bound(p, q, steps=200, batch=60)
    seen = judge(found.critic, split(p, 0.5, 0)[0], split(q, 0.5, 1)[0])
    assert seen.lower > 0.3
    assert found.lower <= 0


def test_rounding_is_counted_and_tiny_in_float64():
    found = judge(dense_critic(4), torch.randn(9, 4), torch.randn(9, 4))
    assert 0 < found.rounding < 1e-9


def test_rounding_covers_offsets_that_cancel():
    """Scores around 1e9: the difference of the means has lost nine digits, and says so."""
    critic = nn.Linear(1, 1)
    nn.init.ones_(critic.weight)
    nn.init.constant_(critic.bias, 1e9)
    p, q = 0.1 * torch.ones(3, 1), torch.zeros(3, 1)
    found = judge(critic, p, q)
    truth = float(p[0, 0].double())
    assert found.rounding > 1e-8
    assert found.value <= truth


def test_a_layer_of_unknown_rounding_is_judged_in_real_arithmetic():
    critic = dcgan_critic((1, 8, 8), (4,), convolution="cayley")
    assert judge(critic, torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)).rounding is None


def test_training_leaves_the_global_random_numbers_alone_and_repeats():
    p, q = TASKS["three-cones"].sample(100)
    torch.manual_seed(5)
    first = wasserstein_lower_bound(p, q, steps=5, seed=3)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert first.value == wasserstein_lower_bound(p, q, steps=5, seed=3).value
    assert first.value != wasserstein_lower_bound(p, q, steps=5, seed=4).value


def test_images_have_a_critic_by_default():
    images = torch.rand(8, 1, 8, 8)
    found = wasserstein_lower_bound(images, 1 - images, steps=2, batch=4)
    assert found.samples == (4, 4)


def test_the_exported_critic_proves_its_constant_again():
    found = wasserstein_lower_bound(*TASKS["gaussians"].sample(50), steps=2)
    assert float(onelip.lipschitz_bound(found.critic)) == found.constant
    assert found.history[-1][0] == 2
    assert dataclasses.replace(found).samples == (25, 25)


def test_critics_without_a_proof_are_refused_before_training():
    class Unknown(nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(UnboundedModuleError, match="Unknown"):
        wasserstein_lower_bound(
            torch.zeros(9, 2), torch.ones(9, 2), nn.Sequential(nn.Linear(2, 1), Unknown())
        )


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (torch.zeros(9, 2), torch.zeros(9, 3), "one shape"),
        (torch.zeros(9), torch.zeros(9), r"numbers as \(n, 1\)"),
        (torch.zeros(0, 2), torch.zeros(9, 2), "one shape"),
        (torch.zeros(9, 2).long(), torch.zeros(9, 2), "floats of one dtype"),
        (torch.zeros(9, 2).double(), torch.zeros(9, 2), "floats of one dtype"),
        (torch.full((9, 2), torch.nan), torch.zeros(9, 2), "drop those rows"),
        (torch.zeros(3, 2), torch.zeros(9, 2), "two to train on"),
    ],
)
def test_bad_samples_are_refused(p, q, message):
    with pytest.raises(UsageError, match=message):
        wasserstein_lower_bound(p, q)


@pytest.mark.parametrize("held_out", [0.0, 1.0, -1.0, float("nan"), 0.999])
def test_a_share_that_leaves_nothing_is_refused(held_out):
    with pytest.raises(UsageError, match="held_out"):
        split(torch.zeros(20, 1), held_out, 0)


def test_split_parts_are_disjoint_and_whole():
    train, held_out = split(torch.arange(11.0)[:, None], 0.3, 0)
    assert len(held_out) == 3
    assert sorted([*train.flatten().tolist(), *held_out.flatten().tolist()]) == list(range(11))


def test_several_outputs_are_refused():
    with pytest.raises(UsageError, match="one output per sample"):
        judge(nn.Linear(2, 2), torch.zeros(4, 2), torch.ones(4, 2))


def test_critics_of_nan_are_refused():
    critic = nn.Linear(2, 1)
    nn.init.constant_(critic.weight, torch.nan)
    with pytest.raises(NonFiniteError):
        judge(critic, torch.zeros(4, 2), torch.ones(4, 2))


def test_float64_samples_and_critics_work():
    p, q = torch.zeros(20, 2, dtype=torch.float64), torch.ones(20, 2, dtype=torch.float64)
    assert wasserstein_lower_bound(p, q, steps=60).value == pytest.approx(2**0.5, rel=0.05)


def test_residual_critics_are_judged_by_their_export():
    """A Convex Potential step shortened by ``export`` is what is judged, and what is proved."""
    torch.manual_seed(0)
    body = layers.ConvexPotentialLinear(2, 8)
    critic = nn.Sequential(body, layers.CholeskyLinear(2, 1))
    with torch.no_grad():
        body.weight.mul_(5)  # the power iteration is stale
        body.direction.copy_(torch.tensor([1.0, 0.0]))
    found = judge(critic.eval(), torch.zeros(4, 2), torch.ones(4, 2))
    assert found.constant <= 1 + 1e-6


class SortsBatch(onelip.LipschitzModule):
    """1-Lipschitz as a map of the whole batch, which is another norm than that of a sample."""

    def forward(self, x):
        return x.sort(0).values

    def lipschitz_bound(self):
        return torch.ones((), dtype=torch.float64)


def test_critics_that_mix_samples_are_refused():
    p = torch.arange(6.0).flip(0)[:, None]
    with pytest.raises(UsageError, match="mixes samples"):
        judge(SortsBatch(), p, p)
    with pytest.raises(UsageError, match=r"on a sample alone|one output per sample"):
        judge(nn.Sequential(nn.Flatten(0), nn.Linear(6, 6)), p, p)
    with pytest.raises(UnboundedModuleError, match="samples of one"):
        judge(nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (3, 2))), p, p)


def test_one_number_per_sample_may_come_without_an_axis():
    critic = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    assert judge(critic, torch.rand(5, 2), torch.rand(4, 2)).samples == (5, 4)


def test_scores_out_of_range_are_refused():
    critic = nn.Linear(2, 1).double()
    nn.init.constant_(critic.weight, 1e-200)
    nn.init.constant_(critic.bias, 1e200)
    with pytest.raises(NonFiniteError, match="scores"):
        judge(critic, torch.zeros(4, 2).double(), torch.ones(4, 2).double())


def test_samples_beyond_the_diameter_are_refused_wherever_the_critic_looks():
    critic = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[1.0, 0.0]]))
    p, q = torch.zeros(4, 2), torch.tensor([0.0, 4.9]).expand(4, 2).clone()
    with pytest.raises(UsageError, match=r"4\.9 apart"):
        judge(critic, p, q, diameter=1.0)
    assert judge(critic, p, q, diameter=5.0).interval == "bernstein"


def test_rounding_of_scores_widens_the_interval():
    """The width of two samples 7e-9 apart, seen at an offset of 1e8, is all rounding."""
    critic = nn.Linear(1, 1).double()
    nn.init.ones_(critic.weight)
    nn.init.constant_(critic.bias, 1e8)
    p = torch.tensor([[0.0], [7e-9]], dtype=torch.float64)
    found = judge(critic, p, torch.zeros(2, 1, dtype=torch.float64), confidence=0.999)
    assert found.lower < -2.2e-6  # that of exact scores


def test_samples_stay_what_they_were_behind_layers_that_work_in_place():
    p = torch.randn(5, 2, dtype=torch.float64)
    before = p.clone()
    judge(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 1)).double(), p, p + 1)
    assert torch.equal(p, before)


def test_a_last_batch_of_one_sample_hides_no_mixing():
    p = torch.rand(513, 1)
    with pytest.raises(UsageError, match="mixes samples"):
        judge(SortsBatch(), p, p)


def test_a_diameter_is_refused_before_the_training():
    p, q = torch.zeros(9, 2), torch.full((9, 2), 3.0)
    steps = []
    with pytest.raises(UsageError, match="more than the diameter"):
        wasserstein_lower_bound(p, q, diameter=1.0, progress=lambda *step: steps.append(step))
    assert not steps
