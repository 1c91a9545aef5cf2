"""Estimators of scikit-learn whose predictions come with proved radii and intervals."""

from onelip.errors import missing_extra

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise missing_extra("scikit-learn", "data") from error

from onelip.sklearn.classifier import LipschitzClassifier
from onelip.sklearn.regressor import LipschitzRegressor

__all__ = ["LipschitzClassifier", "LipschitzRegressor"]
