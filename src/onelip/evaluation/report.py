"""Numbers of a run as text."""

from typing import Any


def format_eps(eps: float) -> str:
    """A radius as its fraction of 255 where it is one.

    Example:
        >>> format_eps(36 / 255), format_eps(1.58)
        ('36/255', '1.58')
    """
    levels = eps * 255
    is_level = eps and abs(levels - round(levels)) < 1e-9 and not float(eps).is_integer()
    return f"{round(levels)}/255" if is_level else f"{eps:g}"


def table(metrics: dict[str, Any]) -> str:
    """Clean, certified and attacked accuracy at each radius, the bound and the seconds."""
    certify, attack = metrics["certify"], metrics.get("attack")
    attacked = {row["eps"]: row["attacked"] for row in attack["eps"]} if attack else {}
    note = f" ({certify['data']})" if certify["data"] else ""
    test = certify["test"]
    lines = [
        f"{metrics['recipe']['name']}: {metrics['recipe']['about']}{note}",
        "",
        f"{'eps':>8}  {'certified %':>11}  {'attacked %':>10}",
        f"{'0':>8}  {100 * test['clean']:>11.2f}  {_percent(attack and attack['clean']):>10}",
    ]
    for eps, certified in test["certified"].items():
        under_attack = _percent(attacked.get(float(eps)))
        lines.append(f"{format_eps(float(eps)):>8}  {100 * certified:>11.2f}  {under_attack:>10}")
    samples = f", attacked on {attack['samples']} of them" if attack else ""
    seconds = {
        name: metrics[name]["seconds"] for name in ("train", "certify", "attack") if name in metrics
    }
    lines += [
        "",
        f"clean accuracy        {100 * test['clean']:.2f} % of {test['samples']} images{samples}",
        f"proved Lipschitz bound of the network {certify['bound']:.9f}, in front of the head "
        f"{certify['body_bound']:.9f} ({certify['method']}, level {certify['level']})",
        "seconds               " + ", ".join(f"{k} {v:.1f}" for k, v in seconds.items()),
    ]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
