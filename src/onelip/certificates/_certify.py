r"""Certificates from the margin (Tsuzuku, Sato, Sugiyama, NeurIPS 2018).

The prediction y holds around x as long as no logit difference can lose its margin: for every
rival i, :math:`f_y - f_i` is Lipschitz with constant :math:`\sqrt 2 L`, L that of the network, or
:math:`L \|w_y - w_i\|` after a linear head, L that of the body. The radius is the smallest
:math:`(f_y(x) - f_i(x)) / L_{yi}` over **all** rivals.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor, nn

from onelip.bounds import Mean
from onelip.certificates._radius_proof import (
    EXACT,
    CertificateMethod,
    ForwardPass,
    RadiusProof,
)
from onelip.certificates.batch_independence import refuse_mixed
from onelip.certificates.certificate import Certificate
from onelip.certificates.float_level import float_radii
from onelip.certificates.methods import Method, radius_proof
from onelip.certificates.precision import full_precision
from onelip.chains import Shape
from onelip.errors import UsageError, renamed
from onelip.layers.constrained import plain_linear
from onelip.lipschitz import refuse_complex, refuse_hidden_behaviour
from onelip.norms.proved_once import proved_once
from onelip.reading import Predictor, Traced, readable

_READ = 4  # samples on which a chain is compared with what runs
_CLOSE = 1e-3  # relative, in float32 through many layers


def certify(
    model: Predictor,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    method: Method | str = "product",
    level: Literal["real", "float"] = "real",
    batch_size: int = 1024,
    box: tuple[float, float] | None = (0.0, 1.0),
    constants: Callable[[nn.Module, Shape], RadiusProof] | None = None,
) -> Certificate:
    """Predict a batch, with a radius around each sample in which the prediction cannot change.

    Bound: the radius rests on ``lipschitz_bound(model)``, or, where the last module of a
    Sequential is linear, on that of the rest and on ``|w_y - w_i|``, which is never looser; with
    ``method=LipLT()``, on LipLT for each pair of logits, which is far tighter for ordinary
    networks; with ``Local``, on bounds around each sample; with ``HeadCurvature``, on the curvature
    of an MLP head; with another method, on the least of its bound times the root of 2 and the
    product's for each pair. Rounding of the division goes downwards.
    Shape: ``x`` is ``(batch, ...)``, logits ``(batch, classes)``; of a binary model with a single
    logit z, class 1 is z > 0, and the radius is ``|z|`` over a proved constant of z.
    Cost: one proved bound of the model, each norm in it proved once, and one forward pass. A model
    in its training form should go through ``onelip.export`` first: the radii are larger.

    Args:
        model: in eval mode, from inputs in [0, 1] to logits, of any class whose forward can be
            traced: the trace is what is certified, and has to answer as the model does. It may be
            compiled, or wrapped for data-parallel training. An exported program, or the path of a
            ``.pt2`` or ``.onnx`` file, is certified as it runs. Input scaling is inside the model
            (``onelip.layers.Normalize``), so that radii are in the units of x.
        x: inputs in [0, 1], or in another box.
        labels: true classes; samples that are predicted wrong then get radius 0.
        method: the method that proves the radii: one of ``onelip.bounds``, ``HeadCurvature()``,
            anything else with ``radius_proof(model, input_shape)``, or a name in
            ``onelip.certificates.METHODS``.
        level: ``"real"`` takes logits as if they were computed exactly; ``"float"`` adds a bound
            of the rounding error around each sample, for sums in any order. It costs next to
            nothing in float64 (``model.double()``) and where sums are accumulated in float64
            (``onelip.export(model, accumulate=torch.float64)``), and a part of the radius in
            float32.
        batch_size: samples per forward pass.
        box: interval in which all numbers of x lie, so that inputs which were scaled before are
            found out; None for any finite numbers, as those of a table. Radii do not depend on it.
        constants: the old form of ``method``, a function; it goes with the next release.

    Raises:
        UsageError: a part of the model is in training mode, x has another dtype than the weights,
            leaves its box or is not finite, no logits, logits in 16 bits, labels out of range, or
            there is no such method.
        UnboundedModuleError: a part of the model has no proved bound, or, for level ``float``, its
            rounding is not known.
        NotApplicableError: the method does not cover the model.
        NonFiniteError: a weight or the bound is not finite.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
        >>> certificate = certify(model, torch.rand(3, 1, 2, 2))
        >>> certificate.level, certificate.head, certificate.radius.shape
        ('real', 'pairwise', torch.Size([3]))
    """
    if constants is not None:
        renamed("certify(constants=...)", "certify(method=...)")
        method = _of_function(constants)
    if level not in ("real", "float"):
        raise UsageError(f"no level {level!r}: certificates have level 'real' or 'float'")
    return _certified(model, x, labels, method=method, level=level, batch_size=batch_size, box=box)


@torch.no_grad()
@proved_once()
def _certified(
    asked: Predictor,
    x: Tensor,
    labels: Tensor | None,
    *,
    method: Method | str,
    level: Literal["real", "float"],
    batch_size: int,
    box: tuple[float, float] | None,
) -> Certificate:
    """Predict a batch in full precision, and prove its radii."""
    model = readable(asked, tuple(x.shape[1:]))
    _check_input(model, x, box)
    refuse_hidden_behaviour(model)
    single, model = model, of_two_logits(model, x)
    proved = radius_proof(method, model, tuple(x.shape[1:]))
    body, head = proved.split(model)
    mean = Mean.of(model)
    networks = () if mean is None else mean.networks  # which are proved one by one
    members = [(network, readable(network, tuple(x.shape[1:]))) for network in networks]
    with full_precision(x.device):
        features = torch.cat(
            [body(part.clone()) for part in x.split(batch_size)]
        )  # modules may work in place
        logits = torch.cat([head(part) for part in features.split(batch_size)])
        refuse_mixed(model, x[:1], logits)
        refuse_other_function(asked, single, x, batch_size)
        for network, traced in members:
            refuse_other_function(network, traced, x[:_READ], batch_size)
    _check_logits(logits, len(x), labels)
    prediction = logits.argmax(1)
    batch = ForwardPass(x, features, logits, prediction)
    radii = proved.radii(batch)
    found = radii(EXACT)
    if level == "float":
        found = float_radii(model, batch, radii, found, proved.head_parts)
    # A logit that is infinite or NaN proves nothing for its sample.
    sure = torch.isfinite(logits).all(1)
    if model is not single:  # half of a subnormal logit was rounded
        sure &= (logits.abs() >= torch.finfo(logits.dtype).tiny).all(1)
    if labels is not None:
        sure &= prediction == labels.to(prediction.device)
    radius = torch.where(sure, found.radius.to(sure.device), 0.0)
    return Certificate(
        prediction=prediction,
        radius=radius,
        bound=proved.bound,
        body_bound=proved.body_bound,
        layer_bounds=proved.layer_bounds,
        method=proved.method,
        head=proved.head,
        level=level,
        dtype=logits.dtype,
        device=str(logits.device),
        head_radii=found.head,
    )


def _of_function(constants: Callable[[nn.Module, Shape], RadiusProof]) -> CertificateMethod:
    """Wrap a function of a model and the shape of its input as a method."""
    return SimpleNamespace(name="", radius_proof=constants)


def of_two_logits(model: nn.Module, x: Tensor) -> nn.Module:
    """Extend a binary model, of one logit z, by the map to the two logits ``-z / 2, z / 2``."""
    sample = x[:1] if len(x) else x.new_zeros(1, *x.shape[1:])
    try:
        logit = model(sample.clone())
    except RuntimeError:  # of a model that does not take a sample alone, which is refused later
        return model
    if logit.ndim != 2 or logit.shape[1] != 1:
        return model
    halves = plain_linear(x.new_tensor([[-0.5], [0.5]]), None)  # their difference is z
    return nn.Sequential(model, halves).eval()


def network_for(asked: Predictor, x: Tensor) -> nn.Module:
    """Return the network that a model is read as, for inputs of any size.

    Raises:
        UsageError: as ``certify``, but for inputs that leave [0, 1].
        UnboundedModuleError: its forward cannot be traced, or it has hooks or patched methods.
    """
    model = readable(asked, tuple(x.shape[1:]))
    _check_input(model, x, None)
    refuse_hidden_behaviour(model)
    return model


def refuse_other_function(asked: Predictor, read: nn.Module, x: Tensor, batch_size: int) -> None:
    """Refuse a model that computes something else than was traced or read of it.

    Raises:
        UsageError: an output differs by more than rounding explains.
    """
    if isinstance(asked, nn.Module) and read is not asked:
        _refuse_other_answers(asked, read, x, batch_size)
    if isinstance(read, Traced):
        _refuse_other_reading(read, x[:_READ])


def _refuse_other_answers(model: nn.Module, traced: nn.Module, x: Tensor, batch_size: int) -> None:
    """Refuse a model whose forward computes something else than what was traced of it.

    Raises:
        UsageError: an output differs by more than another order of sums explains.
    """
    for part in (x[:1], *x.split(batch_size)):  # the first sample twice: a count would show
        own, other = model(part.clone()), traced(part.clone())
        if not torch.allclose(own, other, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise UsageError(
                f"{type(model).__name__} answers otherwise than the trace of its forward: it rests "
                "on something that changes from call to call"
            )


def _refuse_other_reading(traced: Traced, x: Tensor) -> None:
    """Refuse a network whose chain computes something else than what runs.

    Raises:
        UsageError: they differ by more than rounding explains.
    """
    run, chain = traced(x.clone()).double().cpu(), traced.chain.exact().forward(x.double().cpu())
    size = float(chain.abs().max()) if len(chain) else 0.0
    apart = float((run - chain).abs().max()) if len(chain) and run.isfinite().all() else 0.0
    if apart > _CLOSE * (1 + size):
        raise UsageError(
            f"{traced.title} computes something else than was read of it, by {apart:.3g}: please "
            "report it"
        )


def _check_input(model: nn.Module, x: Tensor, box: tuple[float, float] | None) -> None:
    """Refuse models in training mode, inputs of another dtype, and inputs outside a box."""
    for part in model.modules():  # a slice of an nn.Sequential is a new one, in training mode
        if part.training and type(part) is not nn.Sequential:
            raise UsageError(
                f"the model, or a part of it ({type(part).__name__}), is in training mode: call "
                "model.eval() first"
            )
    refuse_complex(model)
    numbers = [*model.parameters(), *model.buffers()]
    dtypes = {number.dtype for number in numbers if number.is_floating_point()}
    if dtypes and x.dtype not in dtypes:
        of_x, *of_model = (str(d).removeprefix("torch.") for d in (x.dtype, *dtypes))
        raise UsageError(f"inputs are {of_x}, weights {', '.join(of_model)}: make them the same")
    if box is None and not bool(x.isfinite().all()):
        raise UsageError("inputs are infinite or NaN: leave those samples out")
    if box is not None and not bool(((x >= box[0]) & (x <= box[1])).all()):
        raise UsageError(
            f"inputs leave [{box[0]:g}, {box[1]:g}]: radii are in units of x, so scale inside the "
            "model with onelip.layers.Normalize; numbers of a table have box=None"
        )


def _check_logits(logits: Tensor, count: int, labels: Tensor | None) -> None:
    """Refuse outputs that are no logits, 16-bit logits, and labels out of range."""
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        raise UsageError(f"logits of shape {tuple(logits.shape)}, not ({count}, 2 or more classes)")
    if torch.finfo(logits.dtype).bits < 32:
        raise UsageError(
            f"logits in {str(logits.dtype).removeprefix('torch.')} are rounded by more than "
            "margins can bear: certify in 32 bits, model.float()"
        )
    if labels is None:
        return
    if labels.shape != logits.shape[:1]:
        raise UsageError(f"{tuple(labels.shape)} labels for {len(logits)} samples")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise UsageError(f"labels from {int(labels.min())} to {int(labels.max())} are out of range")
