"""Results of a run as text."""

from pathlib import Path
from typing import Literal, cast

from onelip.directed_rounding import upwards
from onelip.errors import UsageError
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.record_schema import (
    Accuracy,
    Attack,
    Averages,
    AveragesByMethod,
    Tightness,
    TrainingRecord,
)


def format_eps(eps: float, pixels: bool = True) -> str:
    """Format a radius, of pixels as a fraction of 255 where it is one.

    Example:
        >>> format_eps(36 / 255), format_eps(1.58)
        ('36/255', '1.58')
    """
    levels = min(eps, 1e9) * 255
    is_level = pixels and eps and abs(levels - round(levels)) < 1e-9 and not float(eps).is_integer()
    return f"{round(levels)}/255" if is_level else f"{eps:g}"


def table(metrics: TrainingRecord, recipe: Recipe) -> str:
    """Format clean, certified and attacked accuracy at each radius, the bound and the seconds.

    Attacks on a part of the test set stand beside the certified accuracy of the same images.
    """
    missing = [name for name in ("train", "certify") if name not in metrics]
    if missing:
        raise UsageError(f"the record has no entry {missing[0]!r}: onelip {missing[0]} writes it")
    certify, test, train = metrics["certify"], metrics["certify"]["test"], metrics["train"]
    note = f" ({certify['data']})" if certify["data"] else ""
    columns = [(f"certified %, all {test['samples']}", _certified(test))]
    for over, mean in metrics.get("averaged", {}).items():
        columns.append((f"certified %, mean over {over}", _certified(mean["test"])))
    for key, attack in metrics.get("attack", {}).items():
        if attack["samples"] < test["samples"]:
            columns.append((f"certified %, {attack['samples']}", _column(attack, "certified")))
        columns.append((f"attacked %, {key}", _column(attack, "attacked")))
    lines = [f"{recipe.name}: {recipe.about}{note}"]
    if not train["complete"]:
        done = f"{len(train['epochs'])} of {recipe.epochs}"
        lines.append(f"stopped after {done} epochs")
    radii, pixels = [0.0, *sorted(recipe.eps)], not metrics.get("data", {}).get("columns")
    lines += ["", "     eps  " + "  ".join(title for title, _ in columns)]
    for eps in radii:
        cells = [f"{_percent(values.get(eps)):>{len(title)}}" for title, values in columns]
        lines.append(f"{format_eps(eps, pixels):>8}  " + "  ".join(cells))
    seconds = [("train", train["seconds"]), ("certify", certify["seconds"])]
    seconds += [(key, attack["seconds"]) for key, attack in metrics.get("attack", {}).items()]
    return "\n".join(
        [
            *lines,
            "",
            f"clean accuracy {100 * test['clean']:.2f} %",
            f"proved Lipschitz bound {upwards(certify['bound'], 9)}, in front of the head "
            f"{upwards(certify['body_bound'], 9)} ({certify['method']}, level {certify['level']})",
            *_constants(metrics.get("constants", {})),
            *_tightness(metrics.get("tightness")),
            "seconds: " + ", ".join(f"{what} {value:.1f}" for what, value in seconds),
        ]
    )


def held_out_text(accuracy: Accuracy, path: Path) -> str:
    """Format the accuracies on held-out images, and how to go on."""
    certified = [
        f"{100 * share:.2f} % certified at {format_eps(float(eps))}"
        for eps, share in accuracy["certified"].items()
    ]
    shares = ", ".join([f"{100 * accuracy['clean']:.2f} % clean", *certified])
    return f"{accuracy['samples']} held-out images: {shares}\nnot tested yet: onelip certify {path}"


def _constants(constants: AveragesByMethod) -> list[str]:
    """Format average constants of pairs of logits, by method."""
    titles = {"liplt": "LipLT", "naive": "the product of norms"}
    return [
        f"constants of two logits by {titles[method]}, mean: {mean['pairwise']:.4g} "
        f"(L_i + L_j {mean['sum']:.4g}, sqrt(2) L {mean['sqrt2']:.4g})"
        for method, mean in cast(dict[str, Averages], constants).items()
    ]


def _tightness(tightness: Tightness | None) -> list[str]:
    """Format the tightness of the radii before an MLP head."""
    if tightness is None:
        return []
    return [
        f"radii in front of the head: {100 * tightness['exact']:.1f} % exact, mean of radius by "
        f"distance {tightness['ratio']:.4f}, curvature of {tightness['pairs_proved']} pairs proved"
    ]


def _certified(test: Accuracy) -> dict[float, float]:
    return {0.0: test["clean"]} | {float(eps): v for eps, v in test["certified"].items()}


def _column(attack: Attack, what: Literal["certified", "attacked"]) -> dict[float, float]:
    return {0.0: attack["clean"]} | {row["eps"]: row[what] for row in attack["eps"]}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
