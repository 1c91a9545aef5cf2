"""Train a WGAN in a folder, and judge its generator by images that nothing was trained on."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onelip.data import load
from onelip.experiments.lower_bound_record import lower_bound_record
from onelip.experiments.progress import progress_bar
from onelip.experiments.threads import use_threads
from onelip.experiments.wgan.figures import draw_history, draw_samples
from onelip.experiments.wgan.folder import WGANFolder, load_generator
from onelip.experiments.wgan.settings import PENALTY
from onelip.models import generate
from onelip.transport import WGAN, CriticTraining, LowerBound, judge

_SAVED_EVERY = 50  # steps


def train_wgan(
    run: WGANFolder,
    *,
    data: Path | None = None,
    max_minutes: float | None = None,
    progress: bool = True,
) -> bool:
    """Train the settings of a folder, from its checkpoint if there is one.

    Args:
        run: the folder; it gets a checkpoint every 50 steps, and the weights.
        data: folder of the data set, instead of a download.
        max_minutes: stop after the last 50 steps that fit.
        progress: show a progress bar.

    Returns:
        Whether the run is complete. If not, call again to go on.

    Raises:
        UsageError: the settings or the data cannot be used.
        NonFiniteError: the critic's value became infinite or NaN; the last checkpoint stays.
    """
    data = data or run.data_folder
    gan = _prepared(run, data)
    seconds = _resumed(run, gan)
    run.note_session()
    began = time.perf_counter()
    with progress_bar(gan.step, gan.steps, progress) as show:
        while gan.step < gan.steps:
            last = time.perf_counter()
            gan.run((gan.step // _SAVED_EVERY + 1) * _SAVED_EVERY, show)
            now = time.perf_counter()
            run.save_checkpoint({"wgan": gan.state_dict(), "seconds": seconds + now - began})
            if max_minutes is not None and 2 * now - last > began + 60 * max_minutes:
                break
    _record(run, gan, seconds + time.perf_counter() - began, data)
    return gan.step == gan.steps


def judge_wgan(
    run: WGANFolder, data: Path | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """Prove lower bounds of the distance between test split and generator; draw the figures.

    Of two critics: the run's own, if it is proved, and a fresh one of the same family (BCOP for a
    plain critic) that is trained against the finished generator on the training split. The
    intervals hold for every number of samples, since images in [0, 1] have a diameter.

    Args:
        run: a folder with a trained generator and critic.
        data: folder of the data set, instead of a download.
        progress: show a progress bar of the fresh critic's training.

    Returns:
        What was added to the metrics as ``held_out``.
    """
    settings = run.settings
    generator = load_generator(run.path)
    real, note = load_images(run, "test", data)
    run.write({"data": {**run.read()["data"], "note": note}})
    fake = generate(generator, len(real), seed=settings.seed + 1)
    found: dict[str, Any] = {"split": "test", "critic": None}
    if settings.critic != PENALTY:
        _, critic = settings.build()
        run.load_weights("critic", critic)
        found["critic"] = lower_bound_record(_judged(critic, real, fake))
    fresh = _fresh_critic(run, generator, data, progress)
    numbers = lower_bound_record(_judged(fresh, real, fake))
    found["fresh_critic"] = {"steps": settings.judge_steps, **numbers}
    run.write({"held_out": found})
    draw_samples([(run.path.name, generator)], run.path / "samples.png")
    draw_history(run, run.path / "history.png")
    return found


def load_images(run: WGANFolder, split: str, data: Path | None = None) -> tuple[Tensor, str]:
    """Return the images of a split, pixels in [0, 1], and a note for readers of their numbers."""
    found = load(run.settings.dataset, split, data or run.data_folder)
    return found.inputs.float() / 255, found.note


def _prepared(run: WGANFolder, data: Path | None) -> WGAN:
    settings = run.settings
    use_threads(settings.threads)
    generator, critic = settings.build()
    return WGAN(
        generator,
        critic,
        load_images(run, "train", data)[0],
        steps=settings.steps,
        critic_steps=settings.critic_steps,
        batch=settings.batch,
        lr=settings.lr,
        critic_lr=settings.critic_rate,
        penalty=settings.penalty if settings.critic == PENALTY else None,
        seed=settings.seed,
    )


def _resumed(run: WGANFolder, gan: WGAN) -> float:
    """Load the checkpoint, if there is one; return the seconds spent until then."""
    with run.load_checkpoint() as state:
        if state is None:
            return 0.0
        gan.load_state_dict(state["wgan"])
        return float(state["seconds"])


def _record(run: WGANFolder, gan: WGAN, seconds: float, data: Path | None) -> None:
    run.save_weights("generator", gan.generator)
    run.save_weights("critic", gan.critic)
    sizes = {
        name: sum(weight.numel() for weight in model.parameters())
        for name, model in (("generator", gan.generator), ("critic", gan.critic))
    }
    run.write(
        {
            "data": {"train": len(gan.images), "folder": None if data is None else str(data)},
            "train": {
                "complete": gan.step == gan.steps,
                "step": gan.step,
                "seconds": round(seconds, 1),
                "parameters": sizes,
                "history": gan.history,
            },
        }
    )


def _fresh_critic(
    run: WGANFolder, generator: nn.Module, data: Path | None, progress: bool
) -> nn.Module:
    settings, (real, _) = run.settings, load_images(run, "train", data)
    fake = generate(generator, len(real), seed=settings.seed + 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 3)
        critic = settings.new_critic("bcop" if settings.critic == PENALTY else settings.critic)
    steps, seed = settings.judge_steps, settings.seed + 4
    with progress_bar(0, steps, progress) as show:
        CriticTraining(critic, real, fake, steps=steps, seed=seed).run(progress=show)
    return critic


def _judged(critic: nn.Module, real: Tensor, fake: Tensor) -> LowerBound:
    return judge(critic, real, fake, diameter=math.sqrt(real[0].numel()))
