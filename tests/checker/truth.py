"""What a bundle claims, computed by torch from the page of the format: slow and plain."""

import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.checker import more_truth
from tests.checker.more_truth import SMOOTH

Record = dict[str, Any]


def false_claims(folder: Path, tolerance: float = 1e-9) -> list[str]:
    """Claims of a bundle that float64 contradicts by more than a tolerance."""
    record = json.loads((folder / "proof.json").read_text())
    tensors = safetensors.torch.load_file(folder / "tensors.safetensors")
    return Truth(tensors, tolerance).of(record)


class Truth:
    """Tensors, and the claims that were found to be false."""

    def __init__(self, tensors: dict[str, Tensor], tolerance: float) -> None:
        self.tensors, self.tolerance, self.false = tensors, tolerance, list[str]()

    def of(self, record: Record) -> list[str]:
        """Go through a record."""
        shape, body = tuple(record["input"]), 1.0
        for place, block in enumerate(record["network"]["blocks"]):
            shape, constant = self._block(block, shape)
            self._expect(block["bound"], constant, f"block {place}")
            body *= float.fromhex(block["bound"])
        last = record["network"]["last"]
        self._maps(last, shape)
        whole = body * _norms(last)
        if record["network"]["method"] is not None:
            whole = float.fromhex(record["bound"])
            self._method(record["network"], whole)
        self._expect(record["bound"], whole, "the network")
        if record["samples"] is not None:
            self._samples(record, body, whole)
        return self.false

    def _expect(self, claim: str, value: float, place: str) -> None:
        if not float.fromhex(claim) >= value * (1 - self.tolerance):
            self.false.append(f"{place}: {float.fromhex(claim)} is below {value}")

    def _get(self, name: str | None) -> Tensor | None:
        return None if name is None else self.tensors[name].double()

    def _apply(self, record: Record, x: Tensor) -> Tensor:
        kind = record["map"]
        if kind == "dense":
            return F.linear(x.flatten(1), self._get(record["weight"]), self._get(record["bias"]))
        if kind == "convolution":
            return self._convolved(record, x)
        if kind == "scale":
            shift = self._get(record["shift"])
            return x * self._get(record["factor"]) + (0.0 if shift is None else shift)
        if kind == "take":
            flat = x.flatten(1)
            if record["index"] is not None:
                index = self.tensors[record["index"]].long()
                flat = flat[:, index.clamp_min(0)] * (index >= 0)
            return flat.view(-1, *record["outputs"])
        if kind == "adjoint":
            of, shape = record["of"], record["inputs"]
            basis = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
            y = x.flatten(1) @ self._convolved(of, basis).flatten(1).T
            bias = self._get(record["bias"])
            y = y.view(-1, *shape)
            return y if bias is None else y + bias.view(-1, 1, 1)
        if kind in more_truth.MAPS:
            return more_truth.MAPS[kind](self._get, record, x)
        assert kind == "exponential"
        total = term = x
        for k in range(1, record["terms"]):
            term = self._convolved(record["of"], term) / k
            total = total + term
        return total

    def _convolved(self, record: Record, x: Tensor) -> Tensor:
        (p, q), circular = record["padding"], record["circular"]
        x = F.pad(x, (q, q, p, p), mode="circular" if circular else "constant")
        weight, bias = self._get(record["weight"]), self._get(record["bias"])
        settings = record["stride"], 0, record["dilation"], record["groups"]
        return F.conv2d(x, weight, bias, *settings)

    def _maps(self, maps: list[Record], shape: tuple[int, ...]) -> tuple[int, ...]:
        for record in maps:
            zero = torch.zeros(1, *shape, dtype=torch.float64)
            basis = torch.eye(zero.numel(), dtype=torch.float64).view(-1, *shape)
            matrix = (self._apply(record, basis) - self._apply(record, zero)).flatten(1)
            norm = float(torch.linalg.matrix_norm(matrix, 2))
            self._expect(record["norm"], norm, record["map"])
            if "of" in record:
                self._maps([record["of"]], tuple(record.get("inputs", shape)))
            shape = tuple(self._apply(record, zero).shape[1:])
        return shape

    def _through(self, maps: list[Record], x: Tensor) -> Tensor:
        for record in maps:
            x = self._apply(record, x)
        return x

    def _activated(self, record: Record, x: Tensor) -> Tensor:
        if record["kind"] == "leaky-relu":
            return x.relu() - self._get(record["slopes"]) * (-x).relu()
        if record["kind"] in SMOOTH:
            return SMOOTH[record["kind"]][0](x)
        if record["kind"] == "sort":
            groups = x.unflatten(1, (-1, record["size"]))
            return groups.sort(2, descending=record["descending"]).values.flatten(1, 2)
        if record["kind"] in more_truth.ACTIVATIONS:
            return more_truth.ACTIVATIONS[record["kind"]][0](self._get, record, x)
        return F.max_pool2d(x, record["size"], record["stride"])

    def _slopes(self, record: Record) -> tuple[float, float]:
        if record["kind"] == "leaky-relu":
            slopes = self._get(record["slopes"])
            return min(1.0, float(slopes.min())), max(1.0, float(slopes.max()))
        if record["kind"] in SMOOTH:
            return SMOOTH[record["kind"]][1]
        if record["kind"] == "sort":
            return -1.0, 1.0
        if record["kind"] in more_truth.ACTIVATIONS:
            return more_truth.ACTIVATIONS[record["kind"]][1](self._get, record)
        pairs = zip(record["size"], record["stride"], strict=True)
        constant = math.sqrt(math.prod(-(-k // s) for k, s in pairs))
        return -constant, constant

    def _block(self, block: Record, shape: tuple[int, ...]) -> tuple[tuple[int, ...], float]:
        hidden = self._maps(block["inner"], shape)
        low, high = self._slopes(block["activation"])
        norm = _norms(block["inner"])
        if "step" in block:
            reach = float.fromhex(block["step"]) * norm**2
            return shape, max(1.0, reach * high - 1, 1 - reach * min(low, 0.0))
        out = self._activated(block["activation"], torch.zeros(1, *hidden).double()).shape[1:]
        end = self._maps(block["outer"], tuple(out))
        constant = max(high, -low) * norm * _norms(block["outer"])
        if block["skip"] is not None:
            assert self._maps(block["skip"], shape) == end
            constant += _norms(block["skip"])
        return end, constant

    def forward(self, record: Record, x: Tensor) -> Tensor:
        """The network on a batch."""
        x = x.double()
        for block in record["network"]["blocks"]:
            hidden = self._activated(block["activation"], self._through(block["inner"], x))
            if "step" in block:
                weight = block["inner"][0] | {"bias": None}
                zero = torch.zeros(1, *x.shape[1:]).double()
                basis = torch.eye(zero.numel(), dtype=torch.float64).view(-1, *x.shape[1:])
                matrix = self._apply(weight, basis).flatten(1)
                back = hidden.flatten(1) @ matrix.T
                x = x - float.fromhex(block["step"]) * back.view_as(x)
            else:
                y = self._through(block["outer"], hidden)
                x = y if block["skip"] is None else y + self._through(block["skip"], x)
        return self._through(record["network"]["last"], x)

    def _method(self, network: Record, claim: float) -> None:
        """Multipliers: the smallest eigenvalue of the form, scaled."""
        for block in network["blocks"]:
            if "step" in block or block["outer"] or block["skip"] is not None:
                self.false.append("the form is that of another network")
        least = max(_least(self._form(network, claim, bits)) for bits in (24, 0))
        if least < -1e-9:
            self.false.append(f"the form has the eigenvalue {least}")

    def _form(self, network: Record, claim: float, bits: int) -> Tensor:
        """The form, with so many bits of multipliers and slopes, or all: checkers may round."""
        weights = [self._get(block["inner"][0]["weight"]) for block in network["blocks"]]
        activations = [block["activation"] for block in network["blocks"]]
        weights.append(self._get(network["last"][0]["weight"]))
        sizes = [weight.shape[1] for weight in weights]
        form = torch.block_diag(*(torch.zeros(n, n).double() for n in sizes))
        form[: sizes[0], : sizes[0]] = claim**2 * torch.eye(sizes[0]).double()
        start = 0
        for w, act, name in zip(weights, activations, network["method"]["weights"], strict=False):
            a, b, t = start + w.shape[1], start + w.shape[1] + w.shape[0], self._get(name)
            slopes = self._get(act["slopes"]).expand(len(w))
            low, high = slopes.clamp_max(1), slopes.clamp_min(1)
            if bits:  # upwards, and slopes outwards
                fraction, exponent = torch.frexp(t)
                t = torch.ldexp((fraction * 2**bits).ceil(), exponent - bits)
                low, high = (low * 2**bits).floor() / 2**bits, (high * 2**bits).ceil() / 2**bits
            form[start:a, start:a] += 2 * w.T @ ((low * high * t)[:, None] * w)
            form[a:b, a:b] += 2 * torch.diag(t)
            form[a:b, start:a] -= ((low + high) * t)[:, None] * w
            form[start:a, a:b] = form[a:b, start:a].T
            start = a
        form[start:, start:] -= weights[-1].T @ weights[-1]
        return form

    def _curved(self, record: Record, samples: Record) -> None:
        """Parabolas in front of a head of two matrices."""
        network = record["network"]
        *before, block = network["blocks"]
        u, v = (self._get(maps[0]["weight"]) for maps in (block["inner"], network["last"]))
        kind = block["activation"]["kind"]
        low, high = {"softplus": (0, 0.25), "tanh": (-0.77, 0.77), "sigmoid": (-0.097, 0.097)}[kind]
        body = math.prod(float.fromhex(part["bound"]) for part in before)
        bends = self._get(samples["head"]["bends"])
        front = {"network": {"blocks": before, "last": []}}
        features = self.forward(front, self.tensors[samples["inputs"]]).flatten(1)
        hidden = self._through(block["inner"], features)
        hidden.requires_grad_()
        values = self._activated(block["activation"], hidden)
        (slopes,) = torch.autograd.grad(values.sum(), hidden)
        logits = self._through(network["last"], values.detach())
        for i, (own, text) in enumerate(zip(samples["predictions"], samples["radii"], strict=True)):
            p = float.fromhex(text) * body
            for rival in set(range(len(v))) - {own} if p else ():
                d = v[own] - v[rival]
                a = torch.stack([-d * low, -d * high, 0 * d]).amax(0).sqrt()
                bend = float(torch.linalg.matrix_norm(a[:, None] * u, 2)) ** 2
                claimed = float(bends[own, rival])
                if claimed < bend * (1 - self.tolerance):
                    self.false.append(f"the curvature of {own} and {rival} is {bend}")
                steep = float(((slopes[i] * d) @ u).norm())
                margin = float(logits[i, own] - logits[i, rival])
                if margin + self.tolerance * (1 + abs(margin)) < steep * p + claimed * p * p / 2:
                    self.false.append(f"sample {i}: {text} against {rival}")

    def _samples(self, record: Record, body: float, whole: float) -> None:
        samples, last = record["samples"], record["network"]["last"]
        if isinstance(samples["head"], dict):
            self._curved(record, samples)
            return
        logits = self.forward(record, self.tensors[samples["inputs"]]).flatten(1)
        count = logits.shape[1]
        between = torch.full((count, count), math.sqrt(2) * whole, dtype=torch.float64)
        if samples["head"] == "pairs":
            rows = self._get(last[-1]["weight"])
            between = (rows[:, None] - rows).norm(dim=2) * body * _norms(last[:-1])
        for i, (own, text) in enumerate(zip(samples["predictions"], samples["radii"], strict=True)):
            radius = float.fromhex(text)
            for rival in range(count):
                margin = float(logits[i, own] - logits[i, rival])
                slack = self.tolerance * (1 + abs(margin))
                if rival != own and radius > 0 and radius * between[own][rival] > margin + slack:
                    self.false.append(f"sample {i}: {radius} against {rival}")


def _least(form: Tensor) -> float:
    """The smallest eigenvalue, scaled to a diagonal of ones; -1 where that is not positive."""
    if not float(form.diagonal().min()) > 0 or not torch.isfinite(form).all():
        return -1.0
    root = form.diagonal().rsqrt()
    return float(torch.linalg.eigvalsh(root[:, None] * form * root)[0])


def _norms(maps: list[Record]) -> float:
    return math.prod(float.fromhex(record["norm"]) for record in maps)
