"""Estimators of scikit-learn: its own checks, and radii and intervals in both units."""

import importlib
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris, make_moons
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

import onelip
from onelip.errors import NonFiniteError, UsageError
from onelip.sklearn import LipschitzClassifier, LipschitzRegressor

SMALL = {"hidden_layer_sizes": (16, 16), "epochs": 10, "learning_rate": 3e-2, "random_state": 0}
NEEDS_AN_ENVIRONMENT = {"check_array_api_input"}
"""SCIPY_ARRAY_API has to be set before scipy is imported; with it the check passes."""


def checks():
    for estimator in (LipschitzClassifier(**SMALL), LipschitzRegressor(**SMALL)):
        for made, check in estimator_checks_generator(estimator):
            name = getattr(check, "func", check).__name__
            yield pytest.param(made, check, name, id=f"{type(made).__name__}-{name}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check", "name"), [*checks()])
def test_of_scikit_learn(estimator, check, name):
    try:
        check(estimator)
    except pytest.skip.Exception:
        assert name in NEEDS_AN_ENVIRONMENT
        raise


def table():
    """Three classes in columns of very different units."""
    x, y = load_iris(return_X_y=True)
    return x * [1, 1000, 0.01, 1] + [0, 1e4, 5, -3], np.array(["a", "b", "c"])[y]


@pytest.fixture(scope="module")
def classifier():
    return LipschitzClassifier(**SMALL).fit(*table())


@pytest.fixture(scope="module")
def regressor():
    x, _ = table()
    return LipschitzRegressor(2.0, **SMALL).fit(x[:, :3], 100 * x[:, 3])


def moved(x, radius, scale=1.0):
    """Rows at random directions, at a distance in units of a scale for each column."""
    directions = np.random.default_rng(0).normal(size=(20, *x.shape))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    return x + directions * radius[:, None] * scale * (1 - 1e-9)


def test_radii_are_those_of_certify(classifier):
    x, y = table()
    assert classifier.score(x, y) > 0.9
    proved = onelip.certify(classifier.network_, torch.from_numpy(x), box=None)
    assert np.array_equal(classifier.certified_radius(x), proved.radius.numpy())
    assert np.array_equal(classifier.predict(x), classifier.classes_[proved.prediction.numpy()])
    right = classifier.predict(x) == y
    judged = classifier.certified_radius(x, y)
    assert np.array_equal(judged > 0, right & (classifier.certified_radius(x) > 0))
    assert classifier.certify(x, level="float").level == "float"
    assert (classifier.certify(x, level="float").radius <= proved.radius).all()


@pytest.mark.parametrize("units", ["table", "standard"])
def test_no_row_within_a_radius_has_another_label(classifier, units):
    x, _ = table()
    radius = classifier.certified_radius(x, units=units)
    scale = 1.0 if units == "table" else x.std(0)
    label = classifier.predict(x)
    for rows in moved(x, radius, scale):
        assert np.array_equal(classifier.predict(rows), label)
    assert (radius > 0).mean() > 0.95


def test_standard_units_are_those_of_columns_over_their_deviations(classifier):
    """The same radius by hand, of a table that was standardised before."""
    x, y = table()
    z = (x - x.mean(0)) / x.std(0)
    other = LipschitzClassifier(**SMALL).fit(z, y)
    mine = classifier.certified_radius(x, units="standard")
    assert np.allclose(mine, other.certified_radius(z), rtol=1e-3, atol=1e-4)
    # in units of the table the smallest deviation decides
    assert np.allclose(classifier.certified_radius(x), mine * x.std(0).min(), rtol=1e-9)
    assert math.isclose(float(classifier.certify(x).body_bound), 1 / x.std(0).min(), rel_tol=1e-6)


def test_a_margin_costs_accuracy_and_gives_radius():
    x, y = make_moons(200, noise=0.2, random_state=0)
    small, large = (
        np.median(LipschitzClassifier(margin=margin, **SMALL).fit(x, y).certified_radius(x))
        for margin in (0.0, 1.0)
    )
    assert large > 1.5 * small


def test_a_column_of_one_number_and_two_classes():
    x, y = table()
    x, y = np.column_stack([x, np.full(len(x), 7.0)])[:100], y[:100]
    model = LipschitzClassifier(**SMALL).fit(x, y)
    assert model.decision_function(x).shape == (100,)
    assert np.array_equal(model.decision_function(x) > 0, model.predict(x) == "b")
    assert np.isfinite(model.certified_radius(x)).all()


def test_rows_outside_a_domain_are_refused(classifier, regressor):
    x, _ = table()
    low, high = x.min(0), x.max(0)
    inside = classifier.certify(x, domain=(low, high))
    assert torch.equal(inside.radius, classifier.certify(x).radius)
    spoiled = x.copy()
    spoiled[3, 1] = high[1] + 1
    with pytest.raises(UsageError, match=r"row 3, column 1 holds \S+, outside the domain"):
        classifier.certify(spoiled, domain=(low, high))
    with pytest.raises(UsageError, match="domain is a pair"):
        classifier.certify(x, domain=(low[:2], high))
    with pytest.raises(UsageError, match="row 0, column 0"):
        regressor.certify(x[:, :3], 0.1, domain=(-1.0, 0.0))


@pytest.mark.parametrize("units", ["table", "standard"])
def test_predictions_within_eps_are_inside_the_interval(regressor, units):
    x = table()[0][:, :3]
    eps = np.full(len(x), 0.01 if units == "table" else 0.3)
    low, high = regressor.interval(x, eps, units=units)
    scale = 1.0 if units == "table" else x.std(0)
    for rows in moved(x, eps, scale):
        found = regressor.predict(rows)
        assert ((found >= low) & (found <= high)).all()
    bound = regressor.lipschitz_bound(units=units)
    assert np.allclose(high - low, 2 * bound * eps)
    tolerance = 5.0
    radius = regressor.certified_radius(x, tolerance, units=units)
    assert radius.shape == (len(x),)
    assert (radius * bound <= tolerance).all()
    low, high = regressor.interval(x, radius, units=units)
    assert np.allclose(high - low, 2 * tolerance)


def test_the_constant_is_the_one_that_was_asked_for(regressor):
    x, _ = table()
    spread = (100 * x[:, 3]).std()
    assert regressor.lipschitz_bound(units="standard") <= 2 * spread * (1 + 1e-6)
    assert regressor.lipschitz_bound() <= 2 * spread / x[:, :3].std(0).min() * (1 + 1e-6)
    assert regressor.score(x[:, :3], 100 * x[:, 3]) > 0.8


def test_the_same_seed_gives_the_same_network(classifier, regressor):
    x, y = table()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = clone(classifier).fit(x, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(again.decision_function(x), classifier.decision_function(x))
    other = clone(classifier).set_params(random_state=1).fit(x, y)
    assert not np.array_equal(other.decision_function(x), classifier.decision_function(x))
    kept = pickle.loads(pickle.dumps(regressor))
    assert np.array_equal(kept.predict(x[:, :3]), regressor.predict(x[:, :3]))
    assert kept.lipschitz_bound() == regressor.lipschitz_bound()


def test_pipelines_and_searches():
    x, y = table()
    steps = make_pipeline(FunctionTransformer(np.array), LipschitzClassifier(**SMALL))
    grid = {"lipschitzclassifier__margin": [0.1, 0.5]}
    search = GridSearchCV(steps, grid, cv=2).fit(x, y)
    assert search.best_score_ > 0.8
    assert search.best_estimator_[-1].certified_radius(x).shape == (150,)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (LipschitzClassifier, {"epochs": 0}, "must be positive"),
        (LipschitzClassifier, {"batch_size": 0}, "must be positive"),
        (LipschitzRegressor, {"learning_rate": 0.0}, "must be positive"),
        (LipschitzClassifier, {"hidden_layer_sizes": (4, 0)}, "hidden_layer_sizes"),
        (LipschitzClassifier, {"linear": "foo"}, "no linear 'foo'; known: aol"),
        (LipschitzClassifier, {"activation": "foo"}, "no activation 'foo'"),
        (LipschitzClassifier, {"margin": -1.0}, "margin >= 0"),
        (LipschitzClassifier, {"temperature": 0.0}, "temperature > 0"),
        (LipschitzRegressor, {"lipschitz": 0.0}, "lipschitz is a positive number"),
        (LipschitzRegressor, {"lipschitz": math.nan}, "lipschitz is a positive number"),
    ],
)
def test_what_no_training_can_have(kind, changes, message):
    x, y = table()
    with pytest.raises(UsageError, match=message):
        kind(**(SMALL | changes)).fit(x, np.unique(y, return_inverse=True)[1])


def test_training_that_diverges_is_an_error():
    x, _ = table()
    with pytest.raises(NonFiniteError, match="smaller learning_rate"):
        LipschitzRegressor(1e38, **SMALL).fit(x, x[:, 0])


def test_other_bad_input(classifier, regressor):
    x, _ = table()
    with pytest.raises(UsageError, match="no units 'metres'"):
        classifier.certified_radius(x, units="metres")
    with pytest.raises(UsageError, match="no row was trained with the label 'z'"):
        classifier.certified_radius(x[:2], ["a", "z"])
    with pytest.raises(UsageError, match="tolerance"):
        regressor.certified_radius(x[:, :3], -1.0)
    with pytest.raises(UsageError, match="eps is a distance"):
        regressor.interval(x[:, :3], -1.0)


def test_layers_without_hidden_ones():
    x, y = table()
    model = LipschitzClassifier((), epochs=20, random_state=0).fit(x, y)
    assert model.score(x, y) > 0.8
    assert (model.certified_radius(x) > 0).all()


def test_without_scikit_learn_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "onelip.sklearn")
    with pytest.raises(UsageError, match=r"scikit-learn is not installed: pip install .*data"):
        importlib.import_module("onelip.sklearn")
