"""A regressor for tables whose predictions have a proved Lipschitz constant."""

from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional as F

from onelip.bounds import lipschitz_bound
from onelip.certificates import Interval, interval
from onelip.errors import UsageError
from onelip.layers import Rescale
from onelip.layers.constrained import plain_linear
from onelip.norms.rounding import downward
from onelip.sklearn import table_network as tables
from onelip.sklearn.table_network import Array, Domain, TableEstimator, Units


class LipschitzRegressor(RegressorMixin, TableEstimator):  # type: ignore[misc]
    """A dense k-Lipschitz network from the standardised columns of a table to a number.

    Args:
        lipschitz: k, in standardised units: by how many deviations of y the prediction may change
            where the columns change by one deviation. A linear function of independent columns that
            explains all of y needs 1.
        hidden_layer_sizes: widths of the layers; even for ``"max-min"``.
        linear: family of the layers, a name in ``onelip.models.families.LINEAR``.
        activation: after each of them, a name in ``onelip.models.families``.
        epochs: passes over the table.
        batch_size: rows in a step.
        learning_rate: the largest, of Adam.
        random_state: seed of the weights and of the order of rows.

    Attributes:
        network_: the exported network, in float64, from rows to ``(rows, 1)``.
        n_features_in_: number of columns.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> x, y = load_diabetes(return_X_y=True)
        >>> model = LipschitzRegressor(epochs=20, random_state=0).fit(x, y)
        >>> low, high = model.interval(x, 0.01)
        >>> bool((low < model.predict(x)).all() and (model.predict(x) < high).all())
        True
    """

    def __init__(
        self,
        lipschitz: float = 3.0,
        hidden_layer_sizes: tuple[int, ...] = (64, 64),
        *,
        linear: str = "cholesky",
        activation: str = "max-min",
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-2,
        random_state: Any = None,
    ) -> None:
        self.lipschitz = lipschitz
        self.hidden_layer_sizes = hidden_layer_sizes
        self.linear = linear
        self.activation = activation
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803  scikit-learn's name
        """Train on the rows of a table and a number for each.

        Raises:
            ValueError: a parameter that no training can have, or a table that scikit-learn refuses.
        """
        x, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        if not 0 < self.lipschitz < np.inf:
            raise UsageError(f"lipschitz is a positive number, got {self.lipschitz}")
        y = np.asarray(y, np.float64)
        (middle,), (spread,) = tables.scaling(y[:, None])
        number = torch.float64
        back = plain_linear(torch.tensor([[spread]], dtype=number), torch.tensor([middle]).double())
        self._train(
            x,
            torch.from_numpy((y - middle) / spread).float(),
            1,
            lambda found, wanted: F.mse_loss(found.squeeze(1), wanted),
            after=[Rescale(self.lipschitz, trained=False)],
            back=[back],
        )
        return self

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return a number for each row."""
        x = self._rows(X)
        return tables.outputs(self.network_, x)[:, 0]

    def lipschitz_bound(self, *, units: Units = "table") -> float:
        """Return the proved constant, in units of y per unit of the columns.

        Args:
            units: ``"table"`` for the units of the numbers in it, ``"standard"`` for those of
                columns that were divided by their deviations.
        """
        check_is_fitted(self)
        network, _ = tables.in_units(self.network_, np.zeros((1, self.n_features_in_)), units)
        return float(lipschitz_bound(network))

    def interval(
        self,
        X: Any,  # noqa: N803
        eps: Any,
        *,
        units: Units = "table",
    ) -> tuple[Array, Array]:
        """Return the least and the largest prediction within a distance of each row, by proof.

        Args:
            X: rows.
            eps: the distance, one for all rows or one for each.
            units: of eps; as for ``lipschitz_bound``.
        """
        found = self.certify(X, eps, units=units)
        return found.lower[:, 0].numpy(), found.upper[:, 0].numpy()

    def certified_radius(
        self,
        X: Any,  # noqa: N803
        tolerance: float,
        *,
        units: Units = "table",
    ) -> Array:
        """Return the distance within which predictions move by no more than a tolerance.

        It is the same for all rows.

        Args:
            X: rows.
            tolerance: in units of y.
            units: of the distance; as for ``lipschitz_bound``.
        """
        if not tolerance >= 0:
            raise UsageError(f"tolerance is a distance of predictions, got {tolerance}")
        rows, bound = len(self._rows(X)), self.lipschitz_bound(units=units)
        radius = downward(tolerance / bound, 2) if bound else np.inf
        return np.full(rows, radius)

    def certify(
        self,
        X: Any,  # noqa: N803
        eps: Any,
        *,
        domain: Domain | None = None,
        units: Units = "table",
        method: str = "product",
        level: Literal["real", "float"] = "real",
    ) -> Interval:
        """Return proved intervals of predictions, and what they rest on.

        Args:
            X: rows.
            eps: as for ``interval``.
            domain: least and largest numbers of the table, one for all columns or one for each:
                rows outside are refused. Intervals do not depend on it.
            units: of eps; as for ``lipschitz_bound``.
            method: a name in ``onelip.bounds.METHODS``.
            level: ``"float"`` counts the rounding of the forward pass.

        Raises:
            UsageError: a row outside the domain, or eps is no distance.
        """
        x = self._rows(X)
        tables.check_domain(x, domain)
        network, inputs = tables.in_units(self.network_, x, units)
        away: Tensor = torch.as_tensor(np.asarray(eps, np.float64))
        return interval(network, inputs, away, method=method, level=level)
