"""Neural networks whose Lipschitz constant is proved."""

from typing import TYPE_CHECKING

from onelip._lazy import lazily

if TYPE_CHECKING:
    from onelip import activations as activations
    from onelip import attacks as attacks
    from onelip import bounds as bounds
    from onelip import certificates as certificates
    from onelip import chains as chains
    from onelip import checker as checker
    from onelip import data as data
    from onelip import errors as errors
    from onelip import estimates as estimates
    from onelip import experiments as experiments
    from onelip import flows as flows
    from onelip import forward_error as forward_error
    from onelip import layers as layers
    from onelip import losses as losses
    from onelip import models as models
    from onelip import norms as norms
    from onelip import optim as optim
    from onelip import parametrize as parametrize
    from onelip import proofs as proofs
    from onelip import reading as reading
    from onelip import testing as testing
    from onelip import transport as transport
    from onelip import versions as versions
    from onelip._convert import Conversion as Conversion
    from onelip._convert import convert as convert
    from onelip._export import export as export
    from onelip._save import save as save
    from onelip.bounds import lipschitz_bound as lipschitz_bound
    from onelip.certificates import Certificate as Certificate
    from onelip.certificates import Interval as Interval
    from onelip.certificates import certify as certify
    from onelip.certificates import interval as interval
    from onelip.experiments.classification.load import load as load
    from onelip.lipschitz import LipschitzModule as LipschitzModule
    from onelip.proofs import prove as prove
else:
    __getattr__, __dir__, __all__ = lazily(__name__, __file__)

__version__ = "0.1.0"
