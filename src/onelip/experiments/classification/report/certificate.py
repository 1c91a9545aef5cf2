"""What the certificates assume, and what they do not cover."""

from collections.abc import Callable, Sequence

from onelip.certificates.certificate import ASSUMPTIONS
from onelip.directed_rounding import upwards
from onelip.experiments.classification.report.markup import Html, element, note, section, table
from onelip.experiments.classification.report.subjects import Subject

_HEADS = {
    "pairwise": "a constant for each pair of logits",
    "general": "one constant for all logits, times the root of 2",
    "mlp": "one hidden layer in front of the logits, by its curvature",
}


def certificate_section(of: Sequence[Subject]) -> Html:
    """Return the section."""
    facts: dict[str, Callable[[Subject], str]] = {
        "method": _method,
        "head": _head,
        "level": lambda subject: subject.certify["level"],
        "holds": lambda subject: ASSUMPTIONS[subject.certify["level"]],
        "proved Lipschitz bound": lambda subject: _bounds(subject, "bound"),
        "in front of the head": lambda subject: _bounds(subject, "body_bound"),
        "logits": lambda subject: subject.certify.get("logits", "not recorded"),
        "distance": lambda subject: f"l2, {subject.info.unit}",
        "test samples": lambda subject: str(subject.certify["test"]["samples"]),
        "data": lambda subject: subject.certify["data"] or subject.folders[0].recipe.dataset,
    }
    rows = [[name, *(fact(subject) for subject in of)] for name, fact in facts.items()]
    words = (
        "A sample with radius r: no input closer than r to it, in the l2 norm, gets another "
        "prediction from the exported network. The proof needs no trust in training, in an attack "
        "or in an estimate. It does not cover"
    )
    return section(
        "certificate",
        "What is certified, and what is not",
        table(
            "What the certificates rest on", ["", *(subject.label for subject in of)], {"": rows}
        ),
        note(words),
        element("ul", *(element("li", words) for words in _not_covered(of))),
    )


def _method(subject: Subject) -> str:
    words, name = subject.certify["method"], subject.certify.get("certificate")
    return words if name is None else f"{name} ({words})"


def _head(subject: Subject) -> str:
    head = subject.certify["method"].rpartition(", ")[2]
    return f"{head}: {_HEADS[head]}" if head in _HEADS else head


def _bounds(subject: Subject, name: str) -> str:
    """Bounds of all seeds, each rounded upwards."""
    found = [(r["certify"]["bound"], r["certify"]["body_bound"]) for r in subject.records]
    of = [both[name == "body_bound"] for both in found]
    return ", ".join(dict.fromkeys(upwards(bound, 9) for bound in of))


def _not_covered(of: Sequence[Subject]) -> list[str]:
    """List what a reader might take to be proved."""
    rounding = any(subject.certify["level"] == "real" for subject in of)
    return [
        "other changes: larger ones, or such as are small in another norm only, a shift or a turn;",
        "whether a prediction is right: certified accuracy counts those that match the label;",
        "other inputs: shares are of these test samples, not of what the network will meet;",
        "what happens before the network: decoding, resizing, cropping;",
        *(
            ["the rounding of the forward pass, at level real (level float includes it);"]
            if rounding
            else []
        ),
        "errors in this library, in torch or in the machine: onelip prove writes a bundle that "
        "another program checks.",
    ]
