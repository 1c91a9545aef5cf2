import pytest
import torch
from torch import nn

from onelip.errors import UsageError
from onelip.experiments.trajectories import (
    SCHEMES,
    discretised,
    plot_trajectories,
    runge_kutta,
    step_times,
)
from onelip.flows import Flow, Midpoint, Piece, QuadraticPotential, RidgeLinear, SkewLinear


def flow() -> Flow:
    torch.manual_seed(0)
    turning = Piece(RidgeLinear(2, 3, activation=nn.Tanh()), SkewLinear(2), duration=0.5)
    return Flow(turning, Piece(QuadraticPotential(2), duration=0.25)).double()


STARTS = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)


def test_the_flow_agrees_with_a_solver():
    odeint = pytest.importorskip("torchdiffeq").odeint
    field, times = flow(), step_times(flow(), 50)
    with torch.no_grad():
        options = {"jump_t": field.jumps}
        expected = odeint(field, STARTS, times, rtol=1e-10, atol=1e-12, options=options)
    torch.testing.assert_close(runge_kutta(field, STARTS, times), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_take_a_state_a_step(scheme):
    field = flow()
    states = discretised(field, SCHEMES[scheme], STARTS, 4)
    assert states.shape == (9, 2, 2)
    fine = discretised(field, SCHEMES[scheme], STARTS, 400)
    exact = runge_kutta(field, STARTS, step_times(field, 400))
    assert (fine - exact).abs().max() < 0.01
    assert (states - exact[::100]).abs().max() < 0.5
    if SCHEMES[scheme]:
        torch.testing.assert_close(
            states[-1], field.discretise(*SCHEMES[scheme], steps=4)(STARTS).detach()
        )


def test_the_figure_is_drawn(tmp_path):
    target = plot_trajectories(flow(), STARTS, tmp_path / "flow.svg", steps=3)
    drawn = target.read_text()
    assert all(label in drawn for label in ("proved for the flow", *SCHEMES))
    one = {"mine": (lambda f, h: nn.Identity(), Midpoint)}
    assert "mine" in plot_trajectories(flow(), STARTS, target, steps=2, schemes=one).read_text()


def test_errors(tmp_path):
    with pytest.raises(UsageError, match="two points in the plane"):
        plot_trajectories(flow(), torch.zeros(2, 3), tmp_path / "flow.svg")
    with pytest.raises(UsageError, match="no figure"):
        plot_trajectories(flow(), STARTS, tmp_path / "flow.txt")
