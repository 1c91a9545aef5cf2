"""The record of a Wasserstein run: what ``metrics.json`` and ``critic.safetensors`` hold."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from onelip.data import Samples
from onelip.errors import UsageError
from onelip.evaluation.transport_inputs import (
    TransportSettings,
    build_critic,
    chosen_critic,
    sha256,
)
from onelip.export import export
from onelip.transport import CriticTraining, LowerBound

RECORD, CRITIC = "metrics.json", "critic.safetensors"


def read_record(path: Path) -> dict[str, Any]:
    """What the ``metrics.json`` of a run holds.

    Raises:
        UsageError: there is no readable run in that folder.
    """
    try:
        content = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} is no run folder: onelip transport P Q makes one") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path / RECORD} cannot be read ({error}): start a new run") from None
    if not isinstance(content, dict) or "transport" not in content:
        raise UsageError(f"{path} is the folder of another command: name one of onelip transport")
    return content


def described(samples: tuple[Samples, Samples], tests: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Where samples came from, how many are held out, and what identifies them."""
    return {
        place: {
            "name": given.name,
            "note": given.note,
            "count": len(given),
            "held_out": len(test),
            "shape": list(given.values.shape[1:]),
            "dtype": str(given.values.dtype).removeprefix("torch."),
            "sha256": sha256(given.values),
        }
        for place, given, test in zip("pq", samples, tests, strict=True)
    }


def reached(
    settings: TransportSettings, training: CriticTraining, found: LowerBound, seconds: float
) -> dict[str, Any]:
    """Critic, training, lower bound and history of a finished run."""
    return {
        "critic": {
            **chosen_critic(settings, tuple(training.p.shape[1:])),
            "parameters": sum(p.numel() for p in training.critic.parameters()),
        },
        "train": {
            "complete": training.step >= training.steps,
            "steps": training.step,
            "seconds": round(seconds, 3),
            "value": training.history[-1][1],
        },
        "result": {
            "value": found.value,
            "lower": found.lower,
            "upper": found.upper,
            "confidence": found.confidence,
            "interval": found.interval,
            "constant": found.constant,
            "rounding": found.rounding,
            "samples": list(found.samples),
        },
        "history": [list(point) for point in training.history],
    }


def load_critic(path: Path) -> nn.Module:
    """The exported critic of a finished run, in float64.

    Raises:
        UsageError: the run has none, or the file is damaged.
    """
    content, file = read_record(path), path / CRITIC
    if not file.exists() or "samples" not in content:
        raise UsageError(f"{path} has no critic yet: onelip transport --resume {path}")
    settings = TransportSettings.of(content["transport"])
    critic = export(build_critic(settings, tuple(content["samples"]["p"]["shape"]))).double()
    try:
        critic.load_state_dict(safetensors.torch.load_file(file))
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise UsageError(
            f"{file} is damaged ({reason}): onelip transport --resume {path}"
        ) from None
    return critic
