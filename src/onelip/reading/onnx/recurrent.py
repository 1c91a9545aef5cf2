r"""ONNX's recurrent layers, unrolled from fixed states.

The input is the whole sequence. Sigmoids and hyperbolic tangents are bounded, so that a state that
starts at a fixed one stays bounded, and so do all products in a cell: a layer over a fixed number
of steps has a Lipschitz constant. With :math:`\delta_s` for how far step s of the input moves, and
d for how far a state does, an LSTM obeys

.. math::
    d^c_t &\le d^c_{t-1} + \alpha(C_{t-1} / 4, 1 / 4, 1; f, i, g),\\
    d^h_t &\le d^c_t + \min(1, C_t) / 4\, (|W_o| \delta_t + |R_o| d^h_{t-1}),

where :math:`C_t \le C_{t-1} + 1` bounds the entries of c, the slope of a sigmoid is at most 1/4,
and :math:`\alpha(a; G)` is the smaller of :math:`\sum_k a_k (|W_k| \delta_t + |R_k| d^h_{t-1})` and
:math:`\sqrt{\sum a_k^2} (|W_G| \delta_t + |R_G| d^h_{t-1})`. A GRU obeys

.. math:: d_t \le d_{t-1} + |\Delta n| + (H + 1) / 4\, (|W_z| \delta_t + |R_z| d_{t-1})

with :math:`H = \max(1, |h_0|)`. All are sums of the :math:`\delta_s` with factors that are not
negative; the norm of the matrix of these factors bounds the layer.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import Opaque
from onelip.chains.value import Value
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.norms.rounding import exact, upward
from onelip.norms.spectral import dense
from onelip.reading.graphs.bounded_products import REACHES
from onelip.reading.graphs.refusals import only_locally
from onelip.reading.onnx.attributes import Attributes

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


class Recurrence(nn.Module):
    """A recurrent layer over sequences ``(batch, steps, copies, inputs)``.

    Args:
        kind: ``"LSTM"``, ``"GRU"`` or ``"RNN"``.
        weights: by directions: of the inputs, of the states, and both biases after one another.
        states: the first ones, by directions, ``(copies, size)`` each: h, and c of an LSTM.
        backwards: for each direction, whether it goes through the sequence backwards.
        result: 0 for all states h, 1 for the last of each direction, 2 for the last c.
        before: whether a GRU multiplies by the state's weight before it resets.
        relu: whether a plain layer has ReLU instead of the hyperbolic tangent.
    """

    weight: Tensor
    recurrent: Tensor
    bias: Tensor
    first: Tensor

    def __init__(
        self,
        kind: str,
        weights: Sequence[Tensor],
        states: Tensor,
        backwards: Sequence[bool],
        *,
        result: int,
        before: bool,
        relu: bool,
    ) -> None:
        super().__init__()
        for name, tensor in zip(("weight", "recurrent", "bias"), weights, strict=True):
            self.register_buffer(name, tensor)
        self.register_buffer("first", states)
        self.kind, self.backwards, self.result = kind, tuple(backwards), result
        self.before, self.relu = before, relu

    def forward(self, x: Tensor) -> Tensor:
        """The states, ``(batch, steps, directions, copies, size)``, or without steps."""
        rows = x.transpose(0, 1)  # steps first
        ways = [self._way(rows, i, back) for i, back in enumerate(self.backwards)]
        result: Tensor = torch.stack(ways, 2 if self.result == 0 else 1)
        return result

    def _way(self, x: Tensor, direction: int, back: bool) -> Tensor:
        inputs = x.flip(0) if back else x
        state = [part.expand(x.shape[1], *part.shape) for part in self.first[:, direction].to(x)]
        states = []
        for row in inputs:
            state = self._step(row, state, direction)
            states.append(state[0])
        if self.result:
            last: Tensor = state[self.result - 1]
            return last
        rows: Tensor = torch.stack(states[::-1] if back else states, 1)
        return rows

    def _step(self, x: Tensor, state: Sequence[Tensor], direction: int) -> list[Tensor]:
        weight, recurrent, bias = (
            part[direction].to(x) for part in (self.weight, self.recurrent, self.bias)
        )
        of_input, of_state = bias.chunk(2)
        h, size = state[0], recurrent.shape[1]
        if self.kind == "GRU":
            a = x @ weight.T + of_input
            gates = (a + h @ recurrent.T + of_state)[..., : 2 * size].sigmoid()
            z, r = gates.chunk(2, -1)
            own, shift = recurrent[2 * size :], of_state[2 * size :]
            inner = r * (h @ own.T + shift) if self.before else (r * h) @ own.T + shift
            n = (a[..., 2 * size :] + inner).tanh()
            return [(1 - z) * n + z * h]
        a = x @ weight.T + h @ recurrent.T + of_input + of_state
        if self.kind == "RNN":
            return [a.relu() if self.relu else a.tanh()]
        i, o, f, g = a.chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return [o.sigmoid() * c.tanh(), c]

    def constants(self, steps: int) -> list[float]:
        """Lipschitz constants of the results 0, 1 and 2, above all directions together."""
        totals = torch.zeros(3, dtype=torch.float64)
        for direction in range(len(self.backwards)):
            states = self._factors(direction, steps)
            h, c = states[0], states[-1]
            if not bool(h.isfinite().all() and c.isfinite().all()):
                raise NonFiniteError(
                    f"the bound of {self.kind} over {steps} steps is beyond the largest float64 "
                    "number: read fewer steps"
                )
            norms = [dense(h).cpu(), h[-1].square().sum().sqrt(), c[-1].square().sum().sqrt()]
            totals += upward(torch.stack(norms).square(), 2 * steps + 8)
        return [float(total) for total in upward(totals.sqrt(), 4)]

    def _factors(self, direction: int, steps: int) -> list[Tensor]:
        """Factors of the input's steps, one row for each step, for h and c."""
        weight, recurrent = exact(self.weight[direction]), exact(self.recurrent[direction])
        bias, first = exact(self.bias[direction]).chunk(2)[1], exact(self.first[:, direction])
        size = recurrent.shape[1]
        count = _GATES[self.kind]
        gates = [slice(k * size, (k + 1) * size) for k in range(count)]
        ws = [dense(weight[gate]).cpu() for gate in gates]
        rs = [dense(recurrent[gate]).cpu() for gate in gates]
        ones = torch.eye(steps, dtype=torch.float64)
        h = c = torch.zeros(steps, dtype=torch.float64)
        rows_h, rows_c = [], []
        reach, largest = float(first[-1].abs().max()), max(1.0, float(first[0].abs().max()))
        inner = recurrent[-size:].abs().sum(1) * largest + bias[-size:].abs()
        inner = upward(inner.max(), size + 4)
        together = [0, 2, 3]
        both = [
            dense(torch.cat([matrix[gates[k]] for k in together if k < count])).cpu()
            for matrix in (weight, recurrent)
        ]
        for row in ones:
            moved = [w * row + r * h for w, r in zip(ws, rs, strict=True)]
            if self.kind == "RNN":
                h = c = moved[0]
            elif self.kind == "GRU":
                z, r, _ = moved
                reset = inner * r / 4 if self.before else rs[2] * largest * r / 4
                n = ws[2] * row + rs[2] * h + reset
                h = c = h + n + (largest + 1) / 4 * z
            else:
                sizes = [1 / 4, reach / 4, 1.0]
                one = sum(a * moved[k] for a, k in zip(sizes, together, strict=True))
                other = math.hypot(*sizes) * (both[0] * row + both[1] * h)
                # Each way is a bound as a whole, for all steps before.
                c = c + (one if float(one.sum()) <= float(other.sum()) else other)
                reach += 1
                h = c + min(1.0, reach) / 4 * moved[1]
            h, c = upward(h, 40), upward(c, 40)
            rows_h.append(h)
            rows_c.append(c)
        return [torch.stack(rows_h), torch.stack(rows_c)]


def _reach(module: Recurrence) -> float:
    """Hidden states are bounded, but for ReLU; cells grow by at most 1 in each step."""
    if module.relu or module.result == 2:
        return math.inf
    return max(1.0, float(module.first[0].abs().max()))


REACHES[Recurrence] = _reach


def recurrent(attributes: Attributes, value: Value, *inputs: Any) -> list[Value]:
    """An LSTM, a GRU or a plain recurrent layer with fixed weights and first states."""
    kind, frame = attributes.kind, attributes.frame
    weight, matrix, bias, lengths, h, c, peepholes = (*inputs, *(None,) * 7)[:7]
    if any(isinstance(part, Value) for part in (h, c)):
        raise only_locally(f"{kind}, from a first state that depends on the input,")
    if not isinstance(value, Value) or any(isinstance(part, Value) for part in inputs):
        raise only_locally(f"{kind} with weights that depend on the input")
    if frame.batch is not None:
        frame.axis(value, 0)  # the first axis holds the steps
    if attributes.get("layout", 0) or len(value.shape) != 3:
        raise UnboundedModuleError(f"{kind} is known on sequences (steps, batch, inputs)")
    steps, copies, _ = value.shape
    if lengths is not None and not bool((lengths == steps).all()):
        raise UnboundedModuleError(f"{kind} over other lengths than that of the sequence")
    if peepholes is not None and bool(peepholes.any()):
        raise UnboundedModuleError(f"{kind} with peepholes: no bound is known")
    relu = _checked(attributes)
    size, directions = matrix.shape[-1], len(weight)
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    backwards = ways.get(attributes.get("direction", "forward"), [])
    if len(backwards) != directions:
        raise UsageError(f"{kind} has weights for {directions} directions")
    if bias is None:
        bias = weight.new_zeros(directions, 2 * weight.shape[1])
    firsts = [
        weight.new_zeros(directions, copies, size) if state is None else state
        for state in ((h, c) if kind == "LSTM" else (h,))
    ]
    states = torch.stack([state.expand(directions, copies, size) for state in firsts])
    results, constants = [], [0.0]
    for result in range(len(firsts) + 1):
        module = Recurrence(
            kind,
            (weight, matrix, bias),
            states,
            backwards,
            result=result,
            before=bool(attributes.get("linear_before_reset", 0)),
            relu=relu,
        )
        constants = constants if result else module.constants(steps)
        whole = (steps, directions, copies, size)
        opaque = Opaque(module, constants[result], whole if result == 0 else whole[1:])
        results.append(value.activated(opaque))
    return results


def _checked(attributes: Attributes) -> bool:
    """Whether a plain layer has ReLU.

    Raises:
        UnboundedModuleError: nothing is known of its settings.
    """
    kind = attributes.kind
    if attributes.get("clip") is not None or attributes.get("input_forget", 0):
        raise UnboundedModuleError(f"{kind} with clip or input_forget: no bound is known")
    names = [
        name.decode() if isinstance(name, bytes) else name
        for name in attributes.get("activations", [])
    ]
    usual = _ACTIVATIONS[kind]
    halves = [names[: len(usual)], names[len(usual) :]]
    if kind == "RNN" and names and all(name == "Relu" for name in names):
        return True
    if any(half and half != usual for half in halves):
        raise UnboundedModuleError(f"{kind} with activations {names}: no bound is known")
    return False
