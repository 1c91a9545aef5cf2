"""Folder of a Wasserstein run: ``metrics.json`` and ``critic.safetensors``."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from onelip._export import export
from onelip.data import Samples
from onelip.errors import UsageError
from onelip.experiments.lower_bound_record import lower_bound_record
from onelip.experiments.record_schema import Identity, Pair, TransportRecord
from onelip.experiments.run_folder import RunFolder
from onelip.experiments.transport.critic import build_critic, chosen_critic
from onelip.experiments.transport.inputs import sha256
from onelip.experiments.transport.settings import TransportSettings
from onelip.transport import CriticTraining, LowerBound


class TransportFolder(RunFolder[TransportSettings, TransportRecord]):
    """Reader and writer of the files of a run.

    Args:
        path: the folder.
    """

    command = key = "transport"
    settings_type, schema = TransportSettings, TransportRecord


def described(samples: tuple[Samples, Samples], tests: tuple[Tensor, Tensor]) -> Pair:
    """Describe samples: source, number held out, and a hash."""
    p, q = (
        Identity(
            name=given.name,
            note=given.note,
            count=len(given),
            held_out=len(test),
            shape=list(given.values.shape[1:]),
            dtype=str(given.values.dtype).removeprefix("torch."),
            sha256=sha256(given.values),
        )
        for given, test in zip(samples, tests, strict=True)
    )
    return {"p": p, "q": q}


def reached(
    settings: TransportSettings, training: CriticTraining, found: LowerBound, seconds: float
) -> dict[str, Any]:
    """Return critic, training, lower bound and history of a finished run."""
    return {
        "critic": {
            **chosen_critic(settings, training.shape),
            "parameters": sum(p.numel() for p in training.critic.parameters()),
        },
        "train": {
            "complete": training.step >= training.steps,
            "steps": training.step,
            "seconds": round(seconds, 3),
            "value": training.history[-1][1],
        },
        "result": lower_bound_record(found),
        "history": [list(point) for point in training.history],
    }


def load_critic(path: Path) -> nn.Module:
    """Return the exported critic of a finished run, in float64.

    Raises:
        UsageError: the run has none, or the file is damaged.
    """
    run = TransportFolder.open(path)
    samples = run.read().get("samples")
    if samples is None:
        raise UsageError(f"{path} has no critic yet: {run.resume}")
    critic = export(build_critic(run.settings, tuple(samples["p"]["shape"]))).double()
    run.load_weights("critic", critic)
    return critic
