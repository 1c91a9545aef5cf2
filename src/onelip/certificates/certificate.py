"""Certificate of a batch: radii, and the bounds and assumptions that they rest on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onelip.certificates.head_curvature.radii import HeadRadii
from onelip.directed_rounding import downwards, upwards
from onelip.errors import UsageError

if TYPE_CHECKING:
    from pandas import DataFrame

ASSUMPTIONS = {
    "real": "in exact arithmetic, for the weights as stored and the logits as computed",
    "float": "for what the network computes, the rounding of its forward pass included",
}
"""What a certificate of a level holds for."""

_QUANTILES = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True)
class Certificate:
    """Certified radii of a batch and everything that they rest on.

    Attributes:
        prediction: ``(batch,)`` int64, the predicted classes.
        radius: ``(batch,)`` float64. No input closer than this, in l2 and in the units of the
            model's input, gets another prediction. 0 for a tie, for logits that are not finite,
            and, where labels were given, for a wrong prediction.
        bound: 0-d float64, the proved Lipschitz bound of the whole model.
        body_bound: 0-d float64, the bound of the part before a linear or MLP head, or ``bound``.
        layer_bounds: the factors of ``bound``, by layer.
        method: the name of the method: ``"product"`` of the layers' bounds, ``"liplt"``, another of
            ``onelip.certificates.METHODS``, or ``"best: lipsdp"``, with the method that gave the
            bound. ``"local, inputs in [0, 1]"`` says that radii hold for such inputs alone.
        head: ``"pairwise"`` (a constant for each pair of logits: ``body_bound |w_y - w_i|``,
            that of LipLT or of ``local``, elsewhere the least of sqrt(2) bound and the product's),
            ``"general"`` (margin / sqrt(2) bound) or ``"mlp"`` (one hidden layer).
        level: ``"real"``: the proof is in exact arithmetic, for the weights as stored and the
            logits as computed; the rounding of the forward pass is not part of it. ``"float"``: it
            holds for what the network computes, rounding included, in this dtype.
        dtype: dtype of the logits, computed with autocast and TF32 off.
        device: device on which the logits were computed.
        head_radii: radii of a curvature certificate in the feature space before an MLP head.
    """

    prediction: Tensor
    radius: Tensor
    bound: Tensor
    body_bound: Tensor
    layer_bounds: tuple[tuple[str, float], ...]
    method: str
    head: str
    level: str
    dtype: torch.dtype
    device: str
    head_radii: HeadRadii | None = None

    def accuracy(self, eps: float, labels: Tensor) -> float:
        """Certified accuracy: the share of samples that are right and have radius > eps."""
        return float(self.robust(eps, labels).double().mean())

    def robust(self, eps: float, labels: Tensor) -> Tensor:
        """Mask of the samples that are predicted right and certified beyond eps."""
        if eps < 0:
            raise UsageError(f"eps is a distance, got {eps}")
        right = self.prediction == labels.to(self.prediction.device)
        return right & (self.radius > eps)

    def rests_on(self) -> dict[str, Any]:
        """Return what the radii rest on, as JSON takes it."""
        return {
            "bound": float(self.bound),
            "body_bound": float(self.body_bound),
            "method": self.method,
            "head": self.head,
            "level": self.level,
            "holds": ASSUMPTIONS[self.level],
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device,
            "layer_bounds": dict(self.layer_bounds),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return predictions, radii and what they rest on, as JSON takes it."""
        samples = {"prediction": self.prediction.tolist(), "radius": self.radius.tolist()}
        return samples | self.rests_on()

    def to_dataframe(self) -> "DataFrame":
        """Return predictions and radii, a row for each sample; ``attrs`` say what they rest on.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise UsageError("pandas is not installed: pip install pandas") from error
        samples = {"prediction": self.prediction.cpu().numpy(), "radius": self.radius.cpu().numpy()}
        frame = DataFrame(samples)
        frame.attrs = self.rests_on()
        return frame

    def __str__(self) -> str:
        """Return five lines: samples, bounds, radii, how and where they were proved, for what."""
        where = f"logits in {str(self.dtype).removeprefix('torch.')} on {self.device}"
        return "\n".join(
            [
                f"{len(self.radius)} samples, {int((self.radius > 0).sum())} with a radius above 0",
                f"proved Lipschitz bound {upwards(float(self.bound), 9)}, in front of the head "
                f"{upwards(float(self.body_bound), 9)}",
                f"radius: {_spread(self.radius)}",
                f"method {self.method}, head {self.head}, level {self.level}, {where}",
                f"it holds {ASSUMPTIONS[self.level]}",
            ]
        )


def _spread(radius: Tensor) -> str:
    """Median and quantiles of radii as text: each that of a sample, and rounded downwards."""
    if not len(radius):
        return "none"
    ranked = radius.sort().values.tolist()
    values = {share: ranked[int(share * (len(ranked) - 1))] for share in (0.5, *_QUANTILES)}
    words = {share: downwards(value, 4) for share, value in values.items()}
    others = ", ".join(f"{100 * share:g} % {words[share]}" for share in _QUANTILES)
    return f"median {words[0.5]}, quantiles {others}"
