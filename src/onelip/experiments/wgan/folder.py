"""Folder of a WGAN: ``metrics.json``, weights of generator and critic, a checkpoint, figures.

The weights are ``generator.safetensors`` and ``critic.safetensors``, the figures ``samples.png``
and ``history.png``.
"""

from pathlib import Path

from torch import nn

from onelip.experiments.record_schema import WGANRecord
from onelip.experiments.run_folder import RunFolder
from onelip.experiments.wgan.settings import WGANSettings


class WGANFolder(RunFolder[WGANSettings, WGANRecord]):
    """Reader and writer of the files of a run.

    Args:
        path: the folder.
        record: its file of settings and numbers.
    """

    command = key = "wgan"
    settings_type, schema = WGANSettings, WGANRecord


def load_generator(path: Path) -> nn.Module:
    """Return the generator of a run, in eval mode, from normal noise to images in [0, 1].

    ``onelip.models.generate`` draws images from it.

    Args:
        path: folder of a run, or one that holds only generator.safetensors and generator.json.

    Raises:
        UsageError: there is none, or its weights are missing, corrupt or those of another one.
    """
    path = Path(path)
    alone = (path / "generator.json").exists() and not (path / "metrics.json").exists()
    run = WGANFolder(path, "generator.json" if alone else "metrics.json")
    generator, _ = run.settings.build()
    run.load_weights("generator", generator)
    return generator.eval()
