"""Radii against distances that are known exactly."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import onelip
from onelip import certify, layers
from onelip.bounds.layer_product import distances
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError


def linear(weight: list | Tensor, bias: list | Tensor | None = None) -> nn.Linear:
    weight = torch.as_tensor(weight)
    head = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    head.weight.data = weight
    head.bias.data = (
        torch.zeros(len(weight), dtype=weight.dtype)
        if bias is None
        else torch.as_tensor(bias, dtype=weight.dtype)
    )
    return head.eval()


def constant(logits: list, inputs: int = 2) -> nn.Linear:
    return linear(torch.zeros(len(logits), inputs), logits)


def true_radius(head: nn.Linear, x: Tensor) -> Tensor:
    """Distance to the nearest decision boundary of a linear classifier, in float64."""
    weight, logits = head.weight.double(), head(x).double()
    best = logits.argmax(1)
    gaps = logits.gather(1, best[:, None]) - logits
    lengths = (weight[best][:, None] - weight).norm(dim=2)
    radius = gaps / lengths
    return radius.scatter(1, best[:, None], math.inf).amin(1)


# The exact distance


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_linear_classifier_gets_its_exact_distance(classes, dtype):
    for _ in range(5):
        head = linear(torch.randn(classes, 6, dtype=dtype), torch.randn(classes))
        x = torch.rand(40, 6, dtype=dtype)
        truth = true_radius(head, x).detach()
        radius = certify(head, x).radius
        assert bool((radius <= truth * (1 + 1e-15)).all())
        assert radius.tolist() == pytest.approx(truth.tolist(), rel=1e-6)


def test_two_classes_by_hand():
    certificate = certify(linear([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    assert certificate.prediction.tolist() == [0]
    assert certificate.radius.item() == pytest.approx(3 / 5, rel=1e-12)
    assert certificate.radius.item() <= 0.6
    assert (certificate.head, certificate.level) == ("pairwise", "real")


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1.0, 1e5, 1e30])
def test_the_scale_of_the_weights_does_not_matter(scale):
    head = linear(torch.randn(3, 4) * scale)
    x = torch.rand(20, 4)
    radius = certify(head, x).radius
    assert radius.tolist() == pytest.approx(true_radius(head, x).tolist(), rel=1e-6)


def test_radii_are_rounded_downwards():
    """margin^2 >= radius^2 |w_y - w_i|^2 in rationals, for the logits as computed."""
    for _ in range(100):
        head = linear(torch.randn(3, 4))
        x = torch.rand(1, 4)
        logits = [Fraction(v) for v in head(x)[0].tolist()]
        rows = [[Fraction(v) for v in row] for row in head.weight.tolist()]
        radius = Fraction(certify(head, x).radius.item())
        best = max(range(3), key=logits.__getitem__)
        for i in set(range(3)) - {best}:
            square = sum((a - b) ** 2 for a, b in zip(rows[best], rows[i], strict=True))
            assert (logits[best] - logits[i]) ** 2 >= radius**2 * square


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-160, 1e-30, 1.0, 1e150])
def test_distances_of_rows_are_rounded_upwards(scale):
    rows = torch.randn(5, 7, dtype=torch.float64).round(decimals=2) * scale
    found = distances(rows)
    exact = [[Fraction(v) for v in row] for row in rows.tolist()]
    for i in range(5):
        for j in range(5):
            square = sum((a - b) ** 2 for a, b in zip(exact[i], exact[j], strict=True))
            assert Fraction(float(found[i, j])) ** 2 >= square


def test_general_radii_are_rounded_downwards():
    model = nn.Sequential(linear([[1.0, 0.0], [0.0, 1.0]]), nn.Identity()).eval()
    certificate = certify(model, torch.tensor([[0.7, 0.1]]))
    margin = Fraction(float(torch.tensor(0.7))) - Fraction(float(torch.tensor(0.1)))
    assert certificate.head == "general"
    assert 2 * Fraction(certificate.radius.item()) ** 2 <= margin**2
    assert certificate.radius.item() == pytest.approx(0.6 / math.sqrt(2), rel=1e-6)


# All rivals


def test_the_binding_rival_has_rank_50():
    """A hundred logits: the rival of rank 50 has a row far away from the winner's."""
    logits = torch.cat([torch.tensor([1.0]), torch.linspace(0.9, 0.0, 99)])
    weight = torch.zeros(100, 3)
    weight[:, 0] = 1e-3
    weight[50] = torch.tensor([0.0, 50.0, 0.0])
    head = linear(weight, logits)
    x = torch.zeros(1, 3)
    certificate = certify(head, x)
    expected = float(logits[0] - logits[50]) / float((weight[0] - weight[50]).norm())
    assert certificate.radius.item() == pytest.approx(expected, rel=1e-6)
    moved = x + (weight[50] - weight[0]) / (weight[50] - weight[0]).norm() * expected * 1.001
    assert int(head(moved).argmax()) == 50


def test_the_prediction_holds_inside_and_only_inside():
    head = linear(torch.randn(7, 3), torch.randn(7))
    x = torch.rand(30, 3)
    certificate = certify(head, x)
    steps = nn.functional.normalize(torch.randn(200, 30, 3), dim=2)
    near = x + steps * certificate.radius[:, None].float() * 0.9999
    assert bool((head(near).argmax(2) == certificate.prediction).all())


# What gets no radius


def test_ties_get_zero():
    certificate = certify(constant([1.0, 3.0, 3.0]), torch.rand(2, 2))
    assert certificate.radius.tolist() == [0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_logits_that_are_not_finite_get_zero(bad, place):
    logits = [2.0, 1.0, 0.0]
    logits[place] = bad
    assert certify(constant(logits), torch.rand(1, 2)).radius.item() == 0


def test_one_bad_sample_leaves_the_others_alone():
    class Poisoned(onelip.LipschitzModule):
        def lipschitz_bound(self):
            return torch.ones((), dtype=torch.float64)

        def forward(self, x):
            return torch.where(x[:, :1] > 0.5, math.nan, 1.0) * torch.tensor([1.0, 0.0]) + x * 0

    certificate = certify(Poisoned().eval(), torch.tensor([[0.9, 0.1], [0.1, 0.1]]))
    assert certificate.radius[0].item() == 0
    assert certificate.radius[1].item() > 0


def test_wrong_labels_get_zero():
    labels = torch.tensor([0, 1, 0])
    certificate = certify(constant([2.0, 1.0]), torch.rand(3, 2), labels)
    assert (certificate.radius > 1).tolist() == [True, False, True]
    assert certificate.radius[1].item() == 0
    assert certificate.robust(0.1, labels).tolist() == [True, False, True]
    assert certificate.accuracy(0.1, torch.tensor([0, 1, 1])) == pytest.approx(1 / 3)


def test_a_constant_network_is_certain_only_of_a_strict_winner():
    def network(logits):
        return nn.Sequential(linear(torch.zeros(2, 2)), linear(torch.ones(2, 2), logits)).eval()

    assert certify(network([2.0, 1.0]), torch.rand(1, 2)).radius.item() == math.inf
    assert certify(network([1.0, 1.0]), torch.rand(1, 2)).radius.item() == 0
    assert certify(constant([2.0, 1.0]), torch.rand(1, 2)).radius.item() > 1e100


def test_accuracy_is_strict_at_eps_and_refuses_negative_eps():
    certificate = certify(linear([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    label, radius = torch.tensor([0]), certificate.radius.item()
    assert certificate.accuracy(radius, label) == 0
    assert certificate.accuracy(math.nextafter(radius, 0), label) == 1
    with pytest.raises(UsageError, match="eps is a distance"):
        certificate.accuracy(-0.1, label)


# What is refused


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf, 2.0])
def test_inputs_outside_the_unit_box(value):
    x = torch.rand(3, 2)
    x[1, 1] = value
    with pytest.raises(UsageError, match=r"inputs leave \[0, 1\]"):
        certify(constant([1.0, 0.0]), x)


def test_training_mode_anywhere():
    with pytest.raises(UsageError, match="training mode"):
        certify(constant([1.0, 0.0]).train(), torch.rand(1, 2))
    model = nn.Sequential(layers.ConvexPotentialLinear(2, 3), nn.Linear(2, 2)).eval()
    model[0].train()  # its forward would move the step after the bound was taken
    with pytest.raises(UsageError, match="training mode"):
        certify(model, torch.rand(1, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["body", "head"])
def test_weights_that_are_not_finite(value, place):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    model[place == "head"].weight.data[0, 1] = value
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        certify(model, torch.rand(1, 2))


def test_a_nan_in_an_activation():
    model = nn.Sequential(nn.PReLU(init=math.nan), nn.Linear(2, 2)).eval()
    with pytest.raises((NonFiniteError, UnboundedModuleError)):
        certify(model, torch.rand(1, 2))


@pytest.mark.parametrize("method", ["product", "liplt"])
@pytest.mark.parametrize("level", ["real", "float"])
def test_one_logit(level, method):
    """A binary model: ``|z| / L``, exact for a linear one; a tie has radius 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)).double().eval().requires_grad_(False)
    x = torch.rand(20, 1, 2, 2, dtype=torch.float64)
    z = model(x)[:, 0]
    labels = (z > 0).long()
    found = certify(model, x, labels, method=method, level=level)
    exact = z.abs() / model[1].weight.norm()
    assert torch.equal(found.prediction, labels)
    assert bool((found.radius <= exact).all())
    assert torch.allclose(found.radius, exact, rtol=1e-6, atol=1e-12)
    assert not certify(model, x, 1 - labels, method=method, level=level).radius.any()
    model[1].weight.zero_()
    model[1].bias.zero_()
    tied = certify(model, x, method=method, level=level)
    assert not tied.radius.any()
    assert certify(model, x[:0], method=method, level=level).radius.shape == (0,)


def test_no_logits():
    with pytest.raises(UsageError, match="2 or more classes"):
        certify(nn.Sequential(nn.Linear(2, 3), nn.Unflatten(1, (3, 1))).eval(), torch.rand(1, 2))


def test_logits_of_another_shape():
    with pytest.raises(UsageError, match="2 or more classes"):
        certify(nn.Linear(2, 3).eval(), torch.rand(1, 4, 2))


def test_labels_out_of_range_or_of_another_number():
    model, x = constant([1.0, 0.0]), torch.rand(2, 2)
    with pytest.raises(UsageError, match="labels from 0 to 2"):
        certify(model, x, torch.tensor([0, 2]))
    with pytest.raises(UsageError, match=r"\(3,\) labels for 2 samples"):
        certify(model, x, torch.tensor([0, 1, 0]))


def test_unknown_parts_and_hooks():
    model = nn.Sequential(nn.Hardshrink(), nn.Linear(2, 2)).eval()
    with pytest.raises(UnboundedModuleError, match="hardshrink"):
        certify(model, torch.rand(1, 2))
    model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Linear(2, 2)).eval()
    model[0].register_forward_hook(lambda m, i, o: 10 * o)
    with pytest.raises(UnboundedModuleError, match="forward hook"):
        certify(model, torch.rand(1, 2))


def test_patched_forward_of_the_whole_model():
    model = nn.Sequential(nn.ReLU(), nn.Linear(2, 2)).eval()
    model.forward = lambda x: 100 * x
    with pytest.raises(UnboundedModuleError, match="patched method"):
        certify(model, torch.rand(1, 2))


# Heads and bodies


def body_and_head(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, classes)).eval()


def test_pairwise_is_never_smaller_than_general():
    for _ in range(20):
        model = body_and_head()
        x = torch.rand(10, 6)
        pairwise = certify(model, x)
        general = certify(nn.Sequential(model, nn.Identity()).eval(), x)
        assert (pairwise.head, general.head) == ("pairwise", "general")
        assert bool((pairwise.radius >= general.radius * (1 - 1e-12)).all())
        assert float(pairwise.bound) == pytest.approx(float(general.bound))


def test_nested_sequentials_are_flattened():
    model = body_and_head()
    nested = nn.Sequential(
        model[0], nn.Sequential(nn.Sequential(model[1]), model[2]), nn.Sequential(model[3])
    )
    x = torch.rand(5, 6)
    flat, deep = certify(model, x), certify(nested.eval(), x)
    assert torch.equal(flat.radius, deep.radius)
    assert [name for name, _ in deep.layer_bounds] == ["0", "1.0.0", "1.1", "2.0"]
    assert [bound for _, bound in flat.layer_bounds] == [bound for _, bound in deep.layer_bounds]


def test_a_module_that_occurs_twice_counts_twice():
    triple = linear(3 * torch.eye(2))
    head = linear([[1.0, 0.0], [0.0, 1.0]])
    certificate = certify(nn.Sequential(triple, triple, head).eval(), torch.tensor([[1.0, 0.0]]))
    assert float(certificate.body_bound) >= 9
    assert certificate.radius.item() == pytest.approx(1 / math.sqrt(2), rel=1e-6)
    assert len(certificate.layer_bounds) == 3


def test_scaling_is_part_of_the_proof():
    head = linear([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[0.9, 0.2]])
    scaled = nn.Sequential(layers.Normalize([0.5, 0.5], [0.25, 0.5]), head).eval()
    certificate = certify(scaled, x)
    logits = scaled(x)[0].detach()
    assert certificate.radius.item() == pytest.approx(
        float(logits[0] - logits[1]) / math.sqrt(2) / 4, rel=1e-6
    )
    # f_0 - f_1 = x_0 / 0.25 - x_1 / 0.5 + c: the true distance is a little larger
    assert certificate.radius.item() <= float(logits[0] - logits[1]) / math.hypot(4, 2)


def test_last_layer_and_its_export():
    model = nn.Sequential(nn.Flatten(), layers.UnitNormLinear(4, 5)).eval()
    x = torch.rand(8, 4)
    before, after = certify(model, x), certify(onelip.export(model), x)
    assert before.head == after.head == "pairwise"
    assert before.radius.tolist() == pytest.approx(after.radius.tolist(), rel=1e-9)
    assert before.radius.tolist() == pytest.approx(
        true_radius(onelip.export(model)[1], x).tolist(), rel=1e-6
    )


def test_a_parametrised_head():
    head = parametrizations.orthogonal(nn.Linear(4, 3))
    certificate = certify(head.eval(), torch.rand(8, 4))
    assert certificate.head == "pairwise"
    assert float(certificate.bound) == pytest.approx(1, abs=1e-6)


def test_a_subclass_of_linear_is_no_head():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model, x = Doubled(2, 2).eval(), torch.rand(9, 2)
    plain = nn.Linear(2, 2)
    plain.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})
    traced = certify(model, x)  # its forward is read, not its base
    assert torch.allclose(traced.radius, certify(plain.eval(), x).radius, rtol=1e-6)


def test_export_enlarges_radii_of_a_layer_whose_estimate_is_cold():
    body = layers.ConvexPotentialLinear(6, 30)
    body.weight.data = torch.randn(30, 6)
    model = nn.Sequential(body, nn.Linear(6, 3)).eval()
    cold, x = certify(model, torch.rand(4, 6)), torch.rand(4, 6)
    exported = certify(onelip.export(model), x)
    assert float(cold.body_bound) > 1.01
    assert float(exported.body_bound) == pytest.approx(1, abs=1e-14)


def test_batches_and_records():
    model, x = body_and_head(), torch.rand(7, 6)
    whole, split = certify(model, x), certify(model, x, batch_size=2)
    assert whole.radius.tolist() == pytest.approx(split.radius.tolist(), rel=1e-5)
    assert whole.dtype == torch.float32
    assert whole.device == "cpu"
    assert whole.radius.dtype == torch.float64
    assert math.prod(bound for _, bound in whole.layer_bounds) == pytest.approx(float(whole.bound))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_logits_in_16_bits_are_refused(dtype):
    with pytest.raises(UsageError, match=r"32 bits, model.float\(\)"):
        certify(body_and_head().to(dtype), torch.rand(7, 6).to(dtype))


def test_an_empty_batch():
    certificate = certify(body_and_head(), torch.rand(0, 6))
    assert certificate.radius.shape == certificate.prediction.shape == (0,)


def test_certifying_changes_nothing():
    model = nn.Sequential(layers.ConvexPotentialLinear(4, 5), layers.UnitNormLinear(4, 3)).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first, second = (certify(model, torch.full((1, 4), 0.5)) for _ in range(2))
    assert torch.equal(first.radius, second.radius)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("logits", [[1e308, -1e308], [1.7e308, 0.0]])
def test_margins_that_overflow_are_no_proof_of_infinity(logits):
    head = linear(torch.eye(2, dtype=torch.float64), torch.tensor(logits, dtype=torch.float64))
    radius = certify(head, torch.zeros(1, 2, dtype=torch.float64)).radius.item()
    assert math.isfinite(radius)


def test_weights_whose_squares_overflow():
    head = linear(torch.eye(2, dtype=torch.float64) * 1e200)
    radius = certify(head, torch.tensor([[1.0, 0.0]], dtype=torch.float64)).radius.item()
    assert 0 <= radius <= 1 / math.sqrt(2)


def test_a_zero_body_before_a_huge_head():
    body = linear(torch.zeros(2, 2, dtype=torch.float64))
    head = linear(torch.eye(2, dtype=torch.float64) * 1e200, [1.0, 0.0])
    radius = certify(
        nn.Sequential(body, head).eval(), torch.zeros(1, 2, dtype=torch.float64)
    ).radius
    assert radius.item() >= 0  # and not NaN


def test_autocast_and_fast_products_do_not_reach_the_logits():
    model, x = onelip.export(body_and_head()), torch.rand(64, 6)
    exact = model(x)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            certificate = certify(model, x)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert certificate.dtype == torch.float32
    assert torch.equal(certificate.radius, certify(model, x).radius)
    assert torch.equal(certificate.prediction, exact.argmax(1))


def test_a_product_that_overflows_raises():
    parts = [nn.Linear(3, 3).double() for _ in range(2)]
    for part in parts:
        part.weight.data = 1e200 * torch.eye(3, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="bound of"):
        certify(nn.Sequential(*parts, layers.TruncateChannels(2)).eval(), torch.rand(2, 3).double())


def test_a_model_that_mixes_samples_is_refused():
    model = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 8))).eval()
    with pytest.raises(UnboundedModuleError, match="samples of one into samples of several"):
        certify(model, torch.rand(4, 4))
    mixing = nn.Sequential(nn.Flatten(0), nn.ReLU(), nn.Unflatten(-1, (4, 4))).eval()
    with pytest.raises(UsageError, match="does not run on a sample alone"):
        certify(mixing, torch.rand(4, 4))


def test_a_batch_that_is_no_batch_is_refused():
    """The joint map of the batch is 1-Lipschitz; that of a single sample need not be."""

    class Sorted(onelip.LipschitzModule):
        def forward(self, x):
            return x.sort(0).values

        def lipschitz_bound(self):
            return torch.ones((), dtype=torch.float64)

    with pytest.raises(UsageError, match="mixes samples"):
        certify(Sorted().eval(), torch.tensor([[0.9, 0.0], [0.2, 0.5]]))


def test_channels_that_broadcasting_would_repeat_are_refused():
    """One grey image against three channels: a stretch of 1.73 with a bound of 1."""
    normalize = layers.Normalize([0.0] * 3, [1.0] * 3)
    model = nn.Sequential(normalize, nn.Flatten(), nn.Linear(48, 2)).eval()
    with pytest.raises(ValueError, match="3 channels are normalised"):
        certify(model, torch.rand(2, 1, 4, 4))
