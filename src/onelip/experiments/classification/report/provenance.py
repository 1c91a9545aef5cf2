"""Commands that make the numbers again, and where and when they were made."""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from onelip.experiments.classification.comparison import as_text, flat_settings
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.classification.report.markup import (
    Html,
    details,
    element,
    joined,
    note,
    section,
    table,
)
from onelip.experiments.classification.report.subjects import Subject
from onelip.experiments.classification.stored_radii import FILE
from onelip.image_sets import OWN


def provenance_section(of: Sequence[Subject], recipes: Mapping[str, Recipe]) -> Html:
    """Return the section.

    Args:
        of: subjects.
        recipes: of the library, by name: commands give what differs from them.
    """
    commands = [line for subject in of for line in _commands(subject, recipes)]
    runs = [_facts(subject, place) for subject in of for place in range(len(subject.folders))]
    rows = [[name, *(facts[name] for facts in runs)] for name in runs[0]]
    settings = [
        table(
            f"Settings: {subject.label}",
            ["option", "value"],
            {"": [[k, as_text(v)] for k, v in flat_settings(subject.folders[0].recipe).items()]},
        )
        for subject in of
    ]
    return section(
        "provenance",
        "Commands and provenance",
        note("These commands make the runs again; a training on other hardware rounds otherwise."),
        element(
            "pre",
            element("code", "\n".join(commands)),
            tabindex=0,
            role="region",
            aria_label="commands",
        ),
        table("Runs", rows[0], {"": rows[1:]}),
        details("All settings", joined(settings)),
    )


def _commands(subject: Subject, recipes: Mapping[str, Recipe]) -> list[str]:
    """Return the commands for each seed."""
    lines = []
    for run, record in zip(subject.folders, subject.records, strict=True):
        place, certify = str(run.path), record["certify"]
        words = ["onelip", "train", *_train(run.recipe, record, recipes), "--out", place]
        lines.append(words)
        options = ["--level", certify["level"]]
        options += ["--method", certify["certificate"]] if "certificate" in certify else []
        if str(certify.get("logits", "")).startswith("float64"):
            options += ["--precision", "64"]
        lines.append(["onelip", "certify", place, *options])
        for key, attack in record.get("attack", {}).items():
            names = key.partition(" on ")[0].replace(" ", "")
            count = str(attack["samples"])
            lines.append(["onelip", "attack", place, "--attacks", names, "--samples", count])
    return [shlex.join(words) for words in lines]


def _train(recipe: Recipe, record: Any, recipes: Mapping[str, Recipe]) -> list[str]:
    """Return recipe and options that are not those of the recipe by that name."""
    base = recipes.get(recipe.name)
    known = {} if base is None else flat_settings(base, without=("name", "about"))
    words = [recipe.name]
    data = record.get("data", {})
    if data.get("folder"):
        words += ["--data", data["folder"]]
    for name, value in flat_settings(recipe, without=("name", "about")).items():
        given = name != "dataset" or value != OWN  # which --data says
        if given and (name not in known or known[name] != value):
            words.append(f"--{name.replace('_', '-')}={_option(value)}")
    return words


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _facts(subject: Subject, place: int) -> dict[str, str]:
    """Return where, when and how long, by name; the folder first."""
    run, record = subject.folders[place], subject.records[place]
    attacks = record.get("attack", {}).values()
    versions = record.get("versions", {})
    shown = [name for name in ("onelip", "torch", "python") if name in versions]
    return {
        "run": str(run.path),
        "seed": str(subject.seeds[place]),
        "started": record.get("started", "-"),
        "commit": record.get("commit") or "-",
        "versions": ", ".join(f"{name} {versions[name]}" for name in shown) or "-",
        "device": record.get("device", "-"),
        "seconds of training": f"{record['train']['seconds']:.1f}" if "train" in record else "-",
        "of the certificate": f"{record['certify']['seconds']:.1f}",
        "of attacks": f"{sum(a['seconds'] for a in attacks):.1f}" if attacks else "-",
        "SHA-256 of the radii": hashlib.sha256((run.path / FILE).read_bytes()).hexdigest(),
    }
