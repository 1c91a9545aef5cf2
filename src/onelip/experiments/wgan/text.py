"""Result of a WGAN as text."""

from onelip.directed_rounding import downwards, upwards
from onelip.experiments.wgan.folder import WGANFolder


def wgan_text(run: WGANFolder) -> str:
    """Describe the result of a run."""
    metrics = run.read()
    train, held_out = metrics["train"], metrics["held_out"]
    note = metrics["data"].get("note")
    lines = [f"{train['step']} steps in {train['seconds']:.0f} s" + (f", {note}" if note else "")]
    rows = (("its own critic", held_out["critic"]), ("a fresh critic", held_out["fresh_critic"]))
    for name, row in rows:
        if row is None:
            continue
        lines.append(
            f"W1 >= {downwards(row['lower'], 3)} with {row['confidence']:.0%} confidence, "
            f"{downwards(row['value'], 3)} "
            f"estimated, by {name} of proved constant {upwards(row['constant'], 7)} on "
            f"{row['samples'][0]} test images and as many generated ones"
        )
    if held_out["critic"] is None:
        lines.append("the run's own critic was trained with a penalty: nothing is proved of it")
    return "\n".join(lines)
