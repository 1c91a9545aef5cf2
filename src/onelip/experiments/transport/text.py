"""Result of a Wasserstein run as text."""

from onelip.directed_rounding import downwards, upwards
from onelip.experiments.record_schema import Identity, TransportRecord


def transport_text(content: TransportRecord) -> str:
    """Describe the samples, the lower bound, its proof, and the reference values."""
    result, p, q = content["result"], content["samples"]["p"], content["samples"]["q"]
    percent = f"{100 * result['confidence']:g} %"
    kind = {"t": "t interval, for many samples", "bernstein": "Bernstein, any number of samples"}
    lines = [
        ("P", f"{p['name']}, {_size(p)}{_note(p)}"),
        ("Q", f"{q['name']}, {_size(q)}{_note(q)}"),
        ("critic", _critic(content)),
        ("", ""),
        ("lower bound, as estimated", downwards(result["value"])),
        (
            f"its {percent} interval",
            f"{downwards(result['lower'])} to {result['upper']:.6g} ({kind[result['interval']]})",
        ),
        ("proved constant of the critic", f"{upwards(result['constant'], 9)}, divided by"),
        ("held-out samples", f"{result['samples'][0]} of P, {result['samples'][1]} of Q"),
        ("rounding, already subtracted", _rounding(result["rounding"])),
    ]
    if "exact" in content:
        lines.append(("exact, of the same samples", f"{content['exact']['distance']:.6g}"))
    if content.get("truth") is not None:
        error = content.get("truth_error")
        words = f" ± {error:.1g} (drawn pairs of an optimal plan)" if error else ""
        lines.append(("true distance of P and Q", f"{content['truth']:.6g}{words}"))
    lines.append(("on training batches", f"{content['train']['value']:.6g}, which proves nothing"))
    lines.append(("seconds", f"{content['train']['seconds']:.1f} of training"))
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{name:{width}}  {words}".rstrip() for name, words in lines)
    return f"Wasserstein-1 distance, Euclidean\n\n{text}"


def _critic(content: TransportRecord) -> str:
    critic = content["critic"]
    widths = ", ".join(map(str, critic["widths"]))
    if critic["layer"] is None:
        return f"{critic['kind']} of {widths} points; {content['train']['steps']} steps"
    return (
        f"{critic['kind']} of {critic['layer']} layers, {widths} wide, {critic['activation']}; "
        f"{content['train']['steps']} steps"
    )


def _size(samples: Identity) -> str:
    shape = " x ".join(map(str, samples["shape"]))
    return f"{samples['count']} samples of {shape}"


def _note(samples: Identity) -> str:
    return f" ({samples['note']})" if samples["note"] else ""


def _rounding(rounding: float | None) -> str:
    if rounding is None:
        return "not known of some layer: the bound holds in exact arithmetic"
    return f"at most {rounding:.1e}"
