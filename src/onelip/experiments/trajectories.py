"""Two solutions of a differential equation in the plane, beside their discretisations."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onelip.errors import UsageError
from onelip.experiments.figures import checked_target, name_axes, new_figure, save_figure
from onelip.flows import (
    ExactFlow,
    ExplicitEuler,
    Flow,
    ImplicitEuler,
    ImplicitEulerSkew,
    Midpoint,
)

Scheme = tuple[Callable[..., nn.Module], Callable[..., nn.Module]]

SCHEMES: dict[str, Scheme | None] = {
    "explicit, not split": None,
    "explicit, midpoint": (ExplicitEuler, Midpoint),
    "explicit, exact": (ExplicitEuler, ExactFlow),
    "implicit, midpoint": (ImplicitEuler, Midpoint),
    "explicit, implicit": (ExplicitEuler, ImplicitEulerSkew),
}
"""Schemes for the potential and for the skew part; None for one explicit step on their sum."""

_FINE = 200  # Runge-Kutta steps for each step of a scheme


def plot_trajectories(
    flow: Flow,
    starts: Tensor,
    target: Path,
    *,
    steps: int = 12,
    schemes: dict[str, Scheme | None] | None = None,
) -> Path:
    """Draw two trajectories on the left, and their distance over time on the right.

    Args:
        flow: in the plane.
        starts: the two points, ``(2, 2)``.
        target: a PNG, PDF or SVG file.
        steps: of each scheme, for each piece of the flow.
        schemes: by label; ``SCHEMES`` by default.

    Raises:
        UsageError: the points are not two in the plane, or the target is no figure.
    """
    if starts.shape != (2, 2):
        raise UsageError(f"two points in the plane have shape (2, 2), got {tuple(starts.shape)}")
    target = checked_target(target)
    times = step_times(flow, steps)
    fine = step_times(flow, steps * _FINE)
    exact = runge_kutta(flow, starts, fine)
    figure = new_figure(10, 5)
    from matplotlib.ticker import LogLocator, NullFormatter

    plane, distance = figure.subplots(1, 2)
    grey = {"color": "0.25", "linewidth": 2.5, "zorder": 3}
    _draw((plane, distance), fine, exact, "the flow itself", grey)
    marks = itertools.cycle("os^Dv")
    for (label, scheme), mark in zip((schemes or SCHEMES).items(), marks, strict=False):
        style = {"marker": mark, "markersize": 4.5, "linewidth": 1, "markerfacecolor": "white"}
        states = discretised(flow, scheme, starts, steps)
        _draw((plane, distance), times, states, label, style)
    plane.plot(*starts.T.numpy(), "k.", markersize=11, zorder=4)
    name_axes(plane, "$x_1$", "$x_2$")
    plane.set(title="two trajectories", aspect="equal")
    _proved(distance, flow, times, float((starts[0] - starts[1]).norm()))
    name_axes(distance, "time", "$|x_t - z_t|$")
    distance.set(title="their distance", yscale="log")
    distance.set_xlim(0, flow.duration)
    distance.yaxis.set(
        major_locator=LogLocator(subs=(1, 2, 5)),
        major_formatter="{x:g}",
        minor_formatter=NullFormatter(),
    )
    handles, labels = distance.get_legend_handles_labels()
    title = "scheme for the potential, the skew part"
    figure.legend(handles, labels, title=title, loc="outside lower center", ncols=4, frameon=False)
    return save_figure(figure, target)


def step_times(flow: Flow, steps: int) -> Tensor:
    """Return the times of ``steps`` steps for each piece, from 0 on, float64."""
    ends = [0.0, *flow.jumps.tolist(), flow.duration]
    parts = [torch.linspace(a, b, steps + 1).double()[1:] for a, b in itertools.pairwise(ends)]
    return torch.cat([torch.zeros(1, dtype=torch.float64), *parts])


@torch.no_grad()
def runge_kutta(flow: Flow, x: Tensor, times: Tensor) -> Tensor:
    """Integrate by the classical method of fourth order; no step may cross a jump of the field."""
    states = [x]
    for start, end in itertools.pairwise(times.tolist()):
        h, middle = end - start, (start + end) / 2  # the field is constant in time over the step
        a = flow(middle, x)
        b = flow(middle, x + h / 2 * a)
        c = flow(middle, x + h / 2 * b)
        d = flow(middle, x + h * c)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
        states.append(x)
    return torch.stack(states)


@torch.no_grad()
def discretised(flow: Flow, scheme: Scheme | None, x: Tensor, steps: int) -> Tensor:
    """Return the states after each step of a scheme."""
    states = [x]
    if scheme is None:
        for start, end in itertools.pairwise(step_times(flow, steps).tolist()):
            states.append(states[-1] + (end - start) * flow((start + end) / 2, states[-1]))
        return torch.stack(states)
    for layer, last in _with_ends(flow, flow.discretise(*scheme, steps=steps)):
        x = layer(x)
        if last:
            states.append(x)
    return torch.stack(states)


def _with_ends(flow: Flow, network: nn.Sequential) -> list[tuple[nn.Module, bool]]:
    """Return each layer, and whether a step ends with it."""
    parts = [(p.potential is not None) + (p.skew is not None) for p in flow.parts()]
    steps = len(network) // sum(parts)
    ends = [i == part - 1 for part in parts for _ in range(steps) for i in range(part)]
    return list(zip(network, ends, strict=True))


def _draw(
    axes: tuple[Any, Any], times: Tensor, states: Tensor, label: str, style: dict[str, Any]
) -> None:
    """Draw two trajectories, and their distance over time."""
    plane, distance = axes
    (line,) = plane.plot(*states[:, 0].T.numpy(), **style)
    plane.plot(*states[:, 1].T.numpy(), **{**style, "color": line.get_color()})
    apart = (states[:, 0] - states[:, 1]).norm(dim=1)
    distance.plot(times, apart, label=label, **{**style, "color": line.get_color()})


def _proved(distance: Any, flow: Flow, times: Tensor, start: float) -> None:
    """Draw the band of distances that Proposition 2 proves for the flow."""
    grid = torch.linspace(0, float(times[-1]), 100).tolist()
    bounds = [[start * float(end) for end in flow.distance_bounds(0.0, t)] for t in grid]
    low, high = zip(*bounds, strict=True)
    label = "proved for the flow"
    distance.fill_between(grid, low, high, color="0.5", alpha=0.18, label=label, zorder=0)
