"""The training of critics: what it climbs, how it resumes, what it refuses."""

import copy

import pytest
import torch
from torch import nn

from onelip.errors import NonFiniteError, UsageError
from onelip.models import dense_critic
from onelip.transport import TASKS, CriticTraining


def _training(seed=0, **settings):
    torch.manual_seed(seed)
    return CriticTraining(
        dense_critic(2, (8, 8)),
        *TASKS["three-cones"].sample(64),
        **{"steps": 40, "batch": 16, **settings},
    )


def test_a_stopped_training_ends_with_the_same_weights():
    whole, first, second = _training(), _training(), _training(1)
    whole.run()
    first.run(until=17)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run()
    for a, b in zip(whole.critic.parameters(), second.critic.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.history == second.history


def test_state_survives_a_file(tmp_path):
    training = _training()
    training.run(until=3)
    torch.save(training.state_dict(), tmp_path / "state.pt")
    other = _training(1)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.step == 3


def test_history_has_some_two_hundred_points_and_ends_at_the_end():
    training = _training(steps=450)
    training.run()
    assert 200 <= len(training.history) <= 226
    assert training.history[-1][0] == 450


def test_history_averages_what_was_climbed():
    seen = []
    training = _training(steps=400)
    training.run(progress=lambda step, value: seen.append((step, value)))
    assert [step for step, _ in seen] == list(range(1, 401))
    assert training.history[-1][1] > training.history[0][1] + 0.2


def test_run_stops_where_it_is_told_and_not_again():
    training = _training()
    training.run(until=10)
    assert training.step == 10
    training.run(until=5)
    assert training.step == 10
    training.run(until=0)
    assert training.step == 10


def test_the_value_is_that_of_the_dual():
    """One batch of everything: the difference of the means, before the step."""
    torch.manual_seed(0)
    p, q = torch.full((4, 1), 2.0), torch.zeros(4, 1)
    critic = nn.Linear(1, 1)
    expected = 2 * critic.weight.item()
    training = CriticTraining(critic, p, q, steps=1, batch=4)
    training.run()
    assert training.history == [(1, pytest.approx(expected))]


@pytest.mark.parametrize("settings", [{"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"lr": torch.nan}])
def test_settings_that_train_nothing_are_refused(settings):
    with pytest.raises(UsageError, match="must be positive"):
        _training(**settings)


def test_a_critic_without_weights_is_refused():
    p = torch.zeros(4, 1)
    with pytest.raises(UsageError, match="no weights to train"):
        CriticTraining(nn.Flatten(), p, p, steps=1)


def test_divergence_is_told():
    critic = nn.Linear(2, 1)
    nn.init.constant_(critic.weight, 1e38)
    big = torch.full((4, 2), 1e10)
    training = CriticTraining(critic, big, -big, steps=3)
    with pytest.raises(NonFiniteError, match="a smaller lr"):
        training.run()


def test_a_state_does_not_grow_with_the_training():
    training = _training()
    training.run(until=5)
    state = training.state_dict()
    training.run()
    assert len(state["history"]) == 5
