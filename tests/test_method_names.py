"""Names as data against the registries."""

from onelip import bounds, certificates
from onelip.method_names import AVERAGES, BOUND_METHODS, CERTIFICATE_METHODS, TRAINING_CONSTANTS
from onelip.models._averaged import TRANSFORMS


def test_the_names_that_settings_know_are_those_of_the_registries():
    assert tuple(bounds.METHODS) == BOUND_METHODS
    assert tuple(certificates.METHODS) == CERTIFICATE_METHODS
    assert tuple(TRANSFORMS) == AVERAGES
    assert set(TRAINING_CONSTANTS) == {*bounds.estimated(), "head"}
