"""Networks on the columns of a table: their scaling, their training, and what is asked of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from onelip._export import export
from onelip.errors import NonFiniteError, UsageError
from onelip.layers import Normalize, UnitNormLinear, computed_once
from onelip.models import families

Array = NDArray[Any]
Units = Literal["table", "standard"]
Domain = tuple[Any, Any]

_CHUNK = 4096  # rows of a forward pass


def body(
    features: int, widths: Sequence[int], outputs: int, *, linear: str, activation: str
) -> nn.Sequential:
    """Build a 1-Lipschitz network with a head of rows of length 1.

    Raises:
        UsageError: a name is not known, or a width is no positive number.
    """
    if any(int(width) != width or width < 1 for width in widths):
        raise UsageError(f"hidden_layer_sizes are positive whole numbers, got {tuple(widths)}")
    parts: list[nn.Module] = []
    for inputs, width in zip((features, *widths), widths, strict=False):
        parts += [families.linear(linear, inputs, width), families.activate(activation, width)]
    parts.append(UnitNormLinear(widths[-1] if len(widths) else features, outputs))
    return nn.Sequential(*parts)


def scaling(x: Array) -> tuple[Array, Array]:
    """Return means and deviations of columns; 1 for a column of one number."""
    with np.errstate(over="ignore"):
        mean, deviation = x.mean(0), x.std(0)
    usable = np.isfinite(deviation) & (deviation > 10 * np.finfo(np.float64).eps * np.abs(mean))
    return np.where(np.isfinite(mean), mean, 0.0), np.where(usable, deviation, 1.0)


def train(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Minimise a loss by Adam, with a learning rate that falls to 0 along half a cosine.

    Raises:
        UsageError: no positive number of epochs, rows in a batch, or learning rate.
        NonFiniteError: the loss is no longer finite.
    """
    if epochs < 1 or batch_size < 1 or not 0 < learning_rate < math.inf:
        raise UsageError(
            "epochs, batch_size and learning_rate must be positive, got "
            f"{epochs}, {batch_size} and {learning_rate}"
        )
    steps = epochs * math.ceil(len(x) / batch_size)
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2
    )
    random = torch.Generator().manual_seed(seed)
    network.train()
    with torch.enable_grad():
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=random).split(batch_size):
                with computed_once(network):
                    value = loss(network(x[rows]), y[rows])
                    optimizer.zero_grad()
                    value.backward()
                optimizer.step()
                schedule.step()
    if not bool(value.detach().isfinite()):
        raise NonFiniteError("the loss is not finite at the end: a smaller learning_rate")


class TableEstimator(BaseEstimator):  # type: ignore[misc]
    """What a classifier and a regressor share: how rows are read, and how a network is trained.

    Its subclasses have the parameters that ``LipschitzClassifier`` names, and ``network_``.
    """

    def _rows(self, X: Any) -> Array:  # noqa: N803
        check_is_fitted(self)
        return np.ascontiguousarray(validate_data(self, X, dtype=np.float64, reset=False))

    def _train(
        self,
        x: Array,
        y: Tensor,
        count: int,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        after: Sequence[nn.Module] = (),
        back: Sequence[nn.Module] = (),
    ) -> None:
        """Train ``network_`` on the standardised columns.

        Args:
            x: rows of the table.
            y: what the loss compares with.
            count: outputs of the body.
            loss: of outputs and ``y``.
            after: trained parts after the body.
            back: parts after those that training leaves out.
        """
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        mean, deviation = scaling(x)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = self.hidden_layer_sizes
            names = {"linear": self.linear, "activation": self.activation}
            network = body(x.shape[1], widths, count, **names).extend(after)
        train(
            network,
            torch.from_numpy((x - mean) / deviation).float(),
            y,
            loss,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
        )
        self.network_ = on_table(mean, deviation, network, *back)


def on_table(
    mean: Array, deviation: Array, network: nn.Sequential, *after: nn.Module
) -> nn.Sequential:
    """Return a trained network on the numbers of a table, exported, in float64."""
    scale = Normalize(mean.tolist(), deviation.tolist(), dtype=torch.float64)
    exported = export(nn.Sequential(scale, *network.double(), *after).eval())
    assert isinstance(exported, nn.Sequential)
    return exported


def outputs(network: nn.Module, x: Array) -> Array:
    """Run a network on the rows of a table."""
    with torch.no_grad():
        found = [network(part) for part in torch.from_numpy(x).split(_CHUNK)]
    return np.asarray(torch.cat(found).numpy())


def in_units(network: nn.Sequential, x: Array, units: Units) -> tuple[nn.Module, Tensor]:
    """Return a network and its inputs in some units.

    Args:
        network: begins with the scaling of the columns.
        x: rows of the table.
        units: ``"table"``, as the numbers of the table, or ``"standard"``, of columns that were
            divided by their deviations.

    Raises:
        UsageError: no such units.
    """
    rows = torch.from_numpy(x)
    if units == "table":
        return network, rows
    if units == "standard":
        return network[1:], network[0](rows)
    raise UsageError(f"no units {units!r}: radii are in 'table' or 'standard' units")


def check_domain(x: Array, domain: Domain | None) -> None:
    """Refuse rows outside a box.

    Args:
        x: rows of the table.
        domain: least and largest numbers, one for all columns or one for each; None for any.

    Raises:
        UsageError: the message names the first row and column outside.
    """
    if domain is None:
        return
    try:
        low, high = (np.broadcast_to(np.asarray(end, np.float64), x.shape[1:]) for end in domain)
    except (TypeError, ValueError):
        raise UsageError(
            f"domain is a pair, (low, high), of numbers or of one for each of the {x.shape[1]} "
            "columns"
        ) from None
    outside = np.argwhere(~((x >= low) & (x <= high)))
    if len(outside):
        row, column = outside[0]
        raise UsageError(
            f"row {row}, column {column} holds {x[row, column]:g}, outside the domain "
            f"[{low[column]:g}, {high[column]:g}]"
        )
