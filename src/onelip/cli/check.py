"""``onelip check``: check a bundle, by a program that shares nothing with its writer."""

from pathlib import Path

from onelip.checker import check


def run(arguments: list[str]) -> int:
    """Check a bundle; exit status 0 for VALID, 1 for INVALID.

    With ``--files``, compare the files of the network in it with the proof, too: there onelip's
    readers are trusted.
    """
    rest = [argument for argument in arguments if argument != "--files"]
    status = check.main(rest, "onelip check [--files]")
    if status or rest == arguments:
        return status
    from onelip.proofs.files import compared

    for name, reason in compared(Path(rest[0])).items():
        print(f"{name}: {reason or 'onelip reads the network of the proof from it'}")
        status = status or int(bool(reason))
    return status
