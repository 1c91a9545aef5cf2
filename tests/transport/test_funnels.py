"""Funnels: the plan is optimal, the distance is its cost, and no critic proves more."""

import numpy as np
import pytest
import torch

from onelip.errors import UsageError
from onelip.layers import LipschitzExtension
from onelip.models import extension_critic
from onelip.transport import (
    CriticTraining,
    check_task,
    exact_distance,
    funnels,
    judge,
    known_task,
    other_seed,
    wasserstein_lower_bound,
)
from onelip.transport.funnels import HALF, partner


def centers_and_biases(features=3, count=5):
    random = torch.Generator().manual_seed(3)
    centers = 2 * HALF * torch.rand(count, features, generator=random) - HALF
    return centers, 0.2 * torch.randn(count, generator=random)


@pytest.fixture(scope="module")
def task():
    return funnels(*centers_and_biases())


def potential(x, centers, biases):
    """The 1-Lipschitz function of which mass moves along rays."""
    return (torch.cdist(x.double(), centers.double()) + biases.double()).amin(1)


@pytest.mark.parametrize(("features", "count"), [(1, 2), (2, 1), (2, 40), (3, 5), (40, 30)])
def test_the_plan_is_optimal(features, count):
    """The potential rises by what each pair moves, so no 1-Lipschitz function proves less."""
    centers, biases = centers_and_biases(features, count)
    y = 2 * HALF * torch.rand(3000, features) - HALF
    x = partner(y, centers, biases)
    moved = (x - y).double().norm(dim=1)
    rise = potential(y, centers, biases) - potential(x, centers, biases)
    torch.testing.assert_close(rise, moved, rtol=0, atol=2e-5)
    assert (x.abs() <= HALF * (1 + 1e-6)).all()
    assert moved.mean() > 0.05


def test_samples_at_centres_and_on_walls_have_a_partner():
    centers, biases = centers_and_biases()
    y = torch.cat([centers, torch.full((1, 3), HALF), torch.full((1, 3), -HALF)])
    assert partner(y, centers, biases).isfinite().all()


def test_the_distance_is_that_of_the_potential(task):
    centers, biases = centers_and_biases()
    p, q = task.sample(200_000, 1)
    rises = [potential(samples, centers, biases) for samples in (q, p)]
    error = sum(float(r.var()) / len(r) for r in rises) ** 0.5
    gap = float(rises[0].mean() - rises[1].mean())
    assert gap == pytest.approx(task.distance, abs=4 * (error + task.error))
    assert 0 < task.error < 2e-3


def test_the_distance_of_samples_comes_near(task):
    assert exact_distance(*task.sample(800)) == pytest.approx(task.distance, abs=0.15)


def test_critics_find_it_and_no_interval_is_above(task):
    """Fresh samples, and a critic of the form of the potential: nearly all of the distance."""
    p, q = task.sample(20_000)
    torch.manual_seed(0)
    critic = extension_critic(3, (64,), samples=(p[:200], q[:200]))
    training = CriticTraining(
        critic, task.draw_p, task.draw_q, steps=600, batch=128, lr=0.02, seed=other_seed(0)
    )
    training.run()
    found = judge(critic, p, q, diameter=5 * 3**0.5)
    assert 0.85 * task.distance < found.value
    assert found.lower <= task.distance


def overfitted(p, q, steps=150):
    """A critic with a cone on each training sample, which tells any two finite samples apart."""
    critic = extension_critic(p.shape[1], (len(p) + len(q),), samples=(p, q))
    with torch.no_grad():
        scale, mean = critic[1].std[0], critic[1].mean
        critic[2].points.copy_((torch.cat([p, q]) - mean) / scale)
        heights = torch.cat([torch.full((len(p),), 2.0), torch.full((len(q),), -2.0)])
        critic[2].heights.copy_(8 * heights)
        critic[2].share.fill_(0.0)
    CriticTraining(critic, p, q, steps=steps, batch=len(p), lr=0.02).run()
    return critic


@pytest.mark.parametrize("diameter", [None, 5 * 20**0.5])
def test_an_overfitted_critic_proves_nothing_that_is_not_so(diameter):
    """P is Q: each critic sees a distance on its samples; no held-out interval lies above 0."""
    random = torch.Generator().manual_seed(0)
    for _ in range(10):
        p, q, other_p, other_q = 5 * torch.rand(4, 60, 20, generator=random) - HALF
        critic = overfitted(p, q, steps=20)
        assert judge(critic, p, q, diameter=diameter).lower > (0.5 if diameter is None else -60)
        assert judge(critic, p, q).value > 1
        assert judge(critic, other_p, other_q, diameter=diameter).lower <= 0


def test_an_overfitted_critic_is_not_above_the_distance_of_funnels(task):
    p, q = task.sample(60, 5)
    critic = overfitted(p, q)
    seen, unseen = judge(critic, p, q), judge(critic, *task.sample(20_000, 6))
    assert seen.value > task.distance  # what a training value would have claimed
    assert unseen.lower <= unseen.value <= task.distance


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_hold_as_often_as_they_say(confidence):
    """The best critic there is: each miss of its interval would be a claim above the truth."""
    centers, biases = centers_and_biases(2, 3)
    pair = funnels(centers, biases)
    critic = LipschitzExtension(2, 3).eval()
    with torch.no_grad():
        critic.points.copy_(centers)
        critic.heights.copy_(-8 * biases)
        critic.share.fill_(0.0)
    above = 0
    for seed in range(300):
        p, q = pair.sample(200, seed)
        above += judge(critic, p, q, confidence=confidence).lower > pair.distance
    most = 300 * (1 - confidence) / 2
    assert above <= most + 4 * most**0.5
    assert above > 0 or confidence > 0.9  # the t interval is not wider than it says
    bernstein = [judge(critic, *pair.sample(200, s), diameter=5 * 2**0.5) for s in range(50)]
    assert all(found.lower <= pair.distance for found in bernstein)


@pytest.mark.parametrize("seed", [0, 1, 7, 2**31, 2**32 - 1, 2**40 + 3])
def test_fresh_samples_are_none_of_those_held_out(task, seed):
    """Seeds that a generator cannot tell apart would train on the very samples that judge."""
    held_out = {tuple(row) for part in task.sample(300, seed) for row in part.tolist()}
    random = torch.Generator().manual_seed(other_seed(seed))
    fresh = torch.cat([task.draw_p(300, random), task.draw_q(300, random)])
    assert not held_out & {tuple(row) for row in fresh.tolist()}


def test_fresh_training_never_sees_a_sample_twice():
    seen = []

    def draw(n, random):
        seen.append(torch.rand(n, 1, generator=random))
        return seen[-1]

    CriticTraining(torch.nn.Linear(1, 1), draw, draw, steps=5, batch=8).run()
    drawn = torch.cat(seen[2:]).flatten().tolist()  # the first two give the shape
    assert len(drawn) == len(set(drawn)) == 2 * 5 * 8


def test_the_lower_bound_is_trained_on_fresh_samples_and_judged_on_all_others(task):
    seen = []

    def noted(draw):
        return lambda n, random: seen.append(draw(n, random)) or seen[-1]

    fresh = noted(task.draw_p), noted(task.draw_q)
    p, q = task.sample(500)
    found = wasserstein_lower_bound(p, q, fresh=fresh, steps=20, batch=16)
    assert found.samples == (500, 500)
    assert len(torch.cat(seen[2:])) == 2 * 20 * 16
    assert found.lower <= task.distance
    held_out = {tuple(row) for row in torch.cat([p, q]).tolist()}
    assert not held_out & {tuple(row) for row in torch.cat(seen).tolist()}


def test_draws_of_another_shape_are_refused():
    with pytest.raises(UsageError, match="one shape"):
        CriticTraining(
            torch.nn.Linear(1, 1), lambda n, _: torch.zeros(n), torch.ones(4, 1), steps=1
        )


def stored(folder, **arrays):
    np.savez(folder / "funnels.npz", **arrays)
    return str(folder)


def test_funnels_are_read_by_name(tmp_path):
    centers, biases = centers_and_biases()
    (tmp_path / "wasserstein1").mkdir()
    arrays = {"centers_3_5": centers.numpy(), "bias_3_5": biases.numpy()}
    stored(tmp_path / "wasserstein1", **arrays)
    read, given = known_task("funnels-3-5", str(tmp_path)), funnels(centers, biases)
    assert read.distance == given.distance
    assert torch.equal(read.sample(9, 2)[0], given.sample(9, 2)[0])
    with pytest.raises(UsageError, match=r"no funnels-3-6 in .*known: \['3-5'\]"):
        known_task("funnels-3-6", str(tmp_path))


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--data DIR"):
        known_task("funnels-3-5")
    with pytest.raises(UsageError, match=r"no funnels\.npz in"):
        known_task("funnels-3-5", str(tmp_path))
    (tmp_path / "funnels.npz").write_text("nothing")
    with pytest.raises(UsageError, match="cannot be read"):
        known_task("funnels-3-5", str(tmp_path))


@pytest.mark.parametrize(
    "name", ["funnels", "funnels-0-4", "funnels-2", "funnels-2-4-1", "nothing"]
)
def test_names_of_no_task(name):
    with pytest.raises(UsageError, match="funnels-FEATURES-COUNT"):
        check_task(name)


@pytest.mark.parametrize(
    ("centers", "biases", "message"),
    [
        (torch.zeros(3), torch.zeros(3), "centers"),
        (torch.zeros(3, 2), torch.zeros(2), "centers"),
        (torch.zeros(0, 2), torch.zeros(0), "centers"),
        (torch.full((1, 2), 3.0), torch.zeros(1), "within"),
        (torch.full((1, 2), torch.nan), torch.zeros(1), "within"),
        (torch.zeros(1, 2), torch.full((1,), torch.inf), "finite"),
    ],
)
def test_bad_funnels(centers, biases, message):
    with pytest.raises(UsageError, match=message):
        funnels(centers, biases)
