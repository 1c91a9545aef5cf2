"""The radii of all test samples of a run as a file."""

from pathlib import Path

from onelip.experiments.classification.certify import Certified
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.radius_files import write_table


def write_radii(run: ClassificationFolder, certified: Certified, out: Path) -> list[Path]:
    """Write index, label, prediction and radius of each test sample, and return the files.

    A sample that is predicted wrong has the radius 0. Where classes have names, those of label and
    prediction stand beside.

    Args:
        run: a trained run.
        certified: what ``certify_run`` returned for it.
        out: see ``write_table``.
    """
    classes, certificate = run.info.classes, certified.certificate
    labels, prediction = certified.test.labels.tolist(), certificate.prediction.tolist()
    columns = {
        "index": list(range(len(labels))),
        "label": labels,
        "prediction": prediction,
        "radius": certificate.radius.tolist(),
    }
    if classes != tuple(map(str, range(len(classes)))):
        columns["label_name"] = [classes[label] for label in labels]
        columns["prediction_name"] = [classes[label] for label in prediction]
    rests_on = {
        "run": str(run.path),
        "recipe": run.recipe.name,
        "data": run.recipe.dataset,
        "note": certified.test.note,
        "units": run.info.unit,
        "wrong": "a sample that is predicted wrong has the radius 0",
    }
    return write_table(out, columns, rests_on | certificate.rests_on())
