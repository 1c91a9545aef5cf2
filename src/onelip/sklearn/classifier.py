"""A classifier for tables whose predictions have certified radii."""

import math
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from onelip.certificates import Certificate, certify
from onelip.errors import UsageError
from onelip.losses import OffsetCrossEntropy
from onelip.sklearn import table_network as tables
from onelip.sklearn.table_network import Array, Domain, TableEstimator, Units


class LipschitzClassifier(ClassifierMixin, TableEstimator):  # type: ignore[misc]
    """A dense 1-Lipschitz network on the standardised columns of a table.

    Columns are divided by their deviations inside the network, so that radii are in the units of
    the table: a radius r holds for every row whose Euclidean distance is below r, all columns added
    up in their own units. Where those differ, as metres and years, radii in standardised units say
    more: there a column counts by its deviation.

    Args:
        hidden_layer_sizes: widths of the layers; even for ``"max-min"``.
        linear: family of the layers, a name in ``onelip.models.families.LINEAR``.
        activation: after each of them, a name in ``onelip.models.families``.
        margin: radius that training asks of each row, in standardised units.
        temperature: of the cross-entropy and of ``predict_proba``, in units of the logits.
        epochs: passes over the table.
        batch_size: rows in a step.
        learning_rate: the largest, of Adam.
        random_state: seed of the weights and of the order of rows.

    Attributes:
        classes_: labels, in the order of the logits.
        network_: the exported network, in float64, from rows to logits.
        n_features_in_: number of columns.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> model = LipschitzClassifier(epochs=20, random_state=0).fit(x, y)
        >>> model.score(x, y) > 0.9, model.certified_radius(x).shape
        (True, (150,))
    """

    def __init__(
        self,
        hidden_layer_sizes: tuple[int, ...] = (64, 64),
        *,
        linear: str = "cholesky",
        activation: str = "max-min",
        margin: float = 0.5,
        temperature: float = 0.25,
        epochs: int = 100,
        batch_size: int = 128,
        learning_rate: float = 1e-2,
        random_state: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.linear = linear
        self.activation = activation
        self.margin = margin
        self.temperature = temperature
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803  scikit-learn's name
        """Train on the rows of a table and their labels.

        Raises:
            ValueError: fewer than two classes, a parameter that no training can have, or a table
                that scikit-learn refuses.
        """
        x, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise UsageError(f"two classes or more are needed, the labels hold 1 class: {y[0]!r}")
        if not self.margin >= 0 or not self.temperature > 0:
            raise UsageError(
                f"margin >= 0 and temperature > 0 are asked, got {self.margin}, {self.temperature}"
            )
        self._train(
            x,
            torch.from_numpy(labels.astype(np.int64)),
            len(self.classes_),
            OffsetCrossEntropy(math.sqrt(2) * self.margin, self.temperature),
        )
        return self

    def decision_function(self, X: Any) -> Array:  # noqa: N803
        """Return logits, ``(rows, classes)``; of two classes, the second minus the first."""
        logits = self._logits(X)
        return logits if len(self.classes_) > 2 else logits[:, 1] - logits[:, 0]

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return a label for each row."""
        logits = self._logits(X)
        return np.asarray(self.classes_[logits.argmax(1)])

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """Return the softmax of the logits over the temperature; nothing of it is certified."""
        logits = torch.from_numpy(self._logits(X))
        return np.asarray(torch.softmax(logits / self.temperature, 1).numpy())

    def certified_radius(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        *,
        units: Units = "table",
    ) -> Array:
        """Return the distance within which each row keeps its prediction, by proof.

        Args:
            X: rows.
            y: labels; rows that are predicted wrong then get the radius 0.
            units: ``"table"`` for the units of the numbers in it, ``"standard"`` for those of
                columns that were divided by their deviations.
        """
        return np.asarray(self.certify(X, y, units=units).radius.numpy())

    def certify(
        self,
        X: Any,  # noqa: N803
        y: Any = None,
        *,
        domain: Domain | None = None,
        units: Units = "table",
        method: str = "product",
        level: Literal["real", "float"] = "real",
    ) -> Certificate:
        """Return the certificate of some rows; its predictions are places in ``classes_``.

        Args:
            X: rows.
            y: as for ``certified_radius``.
            domain: least and largest numbers of the table, one for all columns or one for each:
                rows outside are refused. Radii do not depend on it.
            units: as for ``certified_radius``.
            method: a name in ``onelip.certificates.METHODS``.
            level: ``"float"`` counts the rounding of the forward pass.

        Raises:
            UsageError: a row outside the domain, or an unknown label.
        """
        x = self._rows(X)
        tables.check_domain(x, domain)
        network, inputs = tables.in_units(self.network_, x, units)
        labels = None if y is None else torch.from_numpy(self._places(y))
        return certify(network, inputs, labels, method=method, level=level, box=None)

    def _places(self, y: Any) -> Array:
        """Return the places of labels in ``classes_``."""
        known = {label: place for place, label in enumerate(self.classes_.tolist())}
        labels = np.asarray(y).tolist()
        unknown = [label for label in labels if label not in known]
        if unknown:
            raise UsageError(f"no row was trained with the label {unknown[0]!r}")
        return np.array([known[label] for label in labels], dtype=np.int64)

    def _logits(self, X: Any) -> Array:  # noqa: N803
        x = self._rows(X)
        return tables.outputs(self.network_, x)
