"""The figure of a Wasserstein run: its lines are where the record says."""

import pytest
import torch
from PIL import Image

from onelip.errors import UsageError
from onelip.experiments.transport import figure as transport_figure
from onelip.experiments.transport.figure import plot_transport

CONTENT = {
    "result": {"value": 2.0, "lower": 1.75, "upper": 2.25, "confidence": 0.95},
    "exact": {"distance": 3.0},
    "truth": 2.5,
    "history": [[10, 0.5], [20, 1.5], [30, 2.25]],
    "samples": {"p": {"name": "one"}, "q": {"name": "a-very-long-name-of-a-folder-of-images"}},
}
P, Q = torch.tensor([2.0, 3.0, 4.0]), torch.tensor([0.5, 1.0, 1.5, 1.0])


@pytest.fixture
def drawn(monkeypatch):
    """The axes, before the figure is closed."""
    axes = []
    monkeypatch.setattr(
        transport_figure,
        "save_figure",
        lambda figure, to: (axes.extend(figure.axes), to)[1],
    )
    return axes


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_lines(drawn, tmp_path):
    plot_transport(CONTENT, P, Q, tmp_path / "a.png")
    left, right = drawn
    heights = {line.get_label(): line.get_ydata() for line in left.get_lines()}
    assert list(heights["training batches"]) == [0.5, 1.5, 2.25]
    assert {*heights["held-out samples, with 95 % interval"]} == {2.0}
    assert {*heights["exact, of the same held-out samples"]} == {3.0}
    assert {*heights["truth"]} == {2.5}
    assert labels(left) == list(heights)
    assert left.get_xlim() == (0, 30)
    means = [lines.get_segments()[0][:, 0].tolist() for lines in right.collections]
    assert means == [[3.0, 3.0], [1.0, 1.0]]
    assert [text.get_text() for text in right.texts] == ["", "2"]
    assert labels(right) == ["P: one", "Q: ...ame-of-a-folder-of-images"]
    heights = [bar.get_height() for bar in right.patches]
    assert sum(heights) == pytest.approx(2)  # shares of P and of Q


def test_what_is_not_known_is_not_drawn(drawn, tmp_path):
    content = {**CONTENT, "truth": None}
    del content["exact"]
    plot_transport(content, P, Q, tmp_path / "a.png")
    assert labels(drawn[0]) == ["training batches", "held-out samples, with 95 % interval"]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("scores", [(P, Q), (torch.zeros(4), torch.zeros(3))], ids=["two", "same"])
def test_files(tmp_path, suffix, scores):
    file = plot_transport(CONTENT, *scores, tmp_path / f"a.{suffix}")
    assert file.stat().st_size > 5000
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    if suffix == "png":
        with Image.open(file) as image:
            assert image.size[0] > 1500


def test_a_file_that_is_no_figure(tmp_path):
    with pytest.raises(UsageError, match=r"a\.txt is no figure"):
        plot_transport(CONTENT, P, Q, tmp_path / "a.txt")
