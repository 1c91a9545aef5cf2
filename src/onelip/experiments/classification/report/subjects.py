"""What a report compares: the runs of one setting, with their records and radii."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from onelip.errors import UsageError
from onelip.experiments.classification.comparison import Group, Run, common_attacks, grouped
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.report.shares import Share, counted, share
from onelip.experiments.classification.stored_radii import StoredRadii, largest, stored_radii
from onelip.experiments.classification.text import format_eps
from onelip.experiments.record_schema import Attack, Certify, TrainingRecord
from onelip.image_sets import DataInfo


@dataclass(frozen=True)
class Subject:
    """Runs that differ only in their seed.

    Attributes:
        label: what differs between this and other subjects of the report.
        folders: of the runs, in the order of their seeds.
        seeds: of the runs.
        records: of the runs, all certified.
        radii: of the runs.
        attacks: attack records that all runs have, each in the order of the runs.
        attacked: key of the fullest of them, or ``"none"``.
        info: facts of the data.
    """

    label: str
    folders: list[ClassificationFolder]
    seeds: list[int]
    records: list[TrainingRecord]
    radii: list[StoredRadii]
    attacks: dict[str, list[Attack]]
    attacked: str
    info: DataInfo

    @property
    def certify(self) -> Certify:
        """Certificate of the first run."""
        return self.records[0]["certify"]

    @property
    def eps(self) -> list[float]:
        """Radii of the recipe, the smallest first."""
        return sorted(set(self.folders[0].recipe.eps))

    def clean(self) -> Share:
        """Clean accuracy on the test set."""
        return self._share(lambda certify: certify["test"]["clean"])

    def certified(self, eps: float) -> Share:
        """Certified accuracy on the test set at a radius of the recipe, as the record has it."""
        return self._share(lambda certify: certify["test"]["certified"][repr(eps)])

    def under_attack(self, key: str, what: Literal["certified", "attacked"]) -> dict[float, Share]:
        """Accuracies on the attacked samples by radius, clean at 0.

        Args:
            key: of the attack record.
            what: ``certified`` or ``attacked``.
        """
        of_seeds = self.attacks[key]
        radii = [row["eps"] for row in of_seeds[0]["eps"]]
        by_radius = {0.0: [record["clean"] for record in of_seeds]}
        for place, eps in enumerate(radii):
            by_radius[eps] = [record["eps"][place][what] for record in of_seeds]
        counts = [record["samples"] for record in of_seeds]
        return {
            eps: share([(counted(v, n), n) for v, n in zip(values, counts, strict=True)])
            for eps, values in by_radius.items()
        }

    def _share(self, of: Callable[[Certify], float]) -> Share:
        certified = [record["certify"] for record in self.records]
        samples = [certify["test"]["samples"] for certify in certified]
        pairs = zip(map(of, certified), samples, strict=True)
        return share([(counted(value, count), count) for value, count in pairs])


def subjects(runs: Sequence[Run]) -> list[Subject]:
    """Put runs of one setting together, and read what a report says of them.

    Raises:
        UsageError: a run is not certified, or its radii are not those of its record.
    """
    return [_subject(group) for group in grouped(runs)]


def _subject(group: Group) -> Subject:
    folders = [run.folder for run in group.runs]
    radii = [stored_radii(folder) for folder in folders]
    for folder, of_run in zip(folders, radii, strict=True):
        _check(folder, of_run)
    common = common_attacks(group)
    records = [folder.read() for folder in folders]
    attacks = {
        key: [record["attack"][key] for record in records]
        for key, first in common.items()
        if all(_same_radii(first, record["attack"][key]) for record in records)
    }
    attacked = str(group.runs[0].identity["attacks"])
    return Subject(
        label=group.label,
        folders=folders,
        seeds=[run.seed for run in group.runs],
        records=records,
        radii=radii,
        attacks=attacks,
        attacked=attacked if attacked in attacks else next(iter(attacks), "none"),
        info=folders[0].info,
    )


def _same_radii(first: Attack, other: Attack) -> bool:
    return [row["eps"] for row in first["eps"]] == [row["eps"] for row in other["eps"]]


def _check(run: ClassificationFolder, radii: StoredRadii) -> None:
    """Refuse radii that are not those that the record was written from."""
    content, again = run.read(), f"onelip certify {run.path}"
    if "certify" not in content:
        raise UsageError(f"{run.path} is not certified yet: {again}")
    test, count = content["certify"]["test"], len(radii.labels)
    beyond = largest(run.info)
    said = [(test["clean"], radii.right)]
    for eps in run.recipe.eps:
        if repr(eps) not in test["certified"]:
            raise UsageError(f"{run.record} has no certified accuracy at {eps:g}: {again}")
        if eps < beyond:
            certified = radii.right & (radii.radius > eps)
            said.append((test["certified"][repr(eps)], certified))
    same = all(counted(value, count) == Fraction(int(mask.sum())) for value, mask in said)
    if test["samples"] != count or not same:
        raise UsageError(f"{run.record} and its radii say different things: {again}")


def below(radii: Tensor) -> NDArray[np.float32]:
    """Convert radii to 32 bits, each rounded downwards.

    Example:
        >>> import torch
        >>> bool(below(torch.tensor([0.1], dtype=torch.float64))[0] <= 0.1)
        True
    """
    exact = radii.double().numpy()
    with np.errstate(over="ignore"):  # what is beyond 32 bits becomes their largest number
        rounded = exact.astype("<f4")
    above = rounded.astype(np.float64) > exact
    rounded[above] = np.nextafter(rounded[above], np.float32(0))
    return rounded


def eps_text(eps: float, info: DataInfo) -> str:
    """Write a radius without rounding it: ``36/255`` where it is one of pixels."""
    text = format_eps(eps, pixels=info.box is not None)
    return text if "/" in text or float(text) == eps else repr(eps)
