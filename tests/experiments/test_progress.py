"""One progress bar for trainings that report their steps."""

import sys

import pytest

from onelip.errors import UsageError
from onelip.experiments.progress import progress_bar


def test_the_bar_counts_from_where_it_begins_to_the_last_step(capsys):
    with progress_bar(3, 8) as show:
        for step in range(4, 9):
            show(step, step / 10)
    err = capsys.readouterr().err
    assert "3/8" in err
    assert "8/8" in err
    assert "value=0.8000" in err


@pytest.mark.parametrize(("step", "wanted"), [(0, False), (8, True)])
def test_no_bar(capsys, monkeypatch, step, wanted):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress_bar(step, 8, wanted) as show:
        assert show is None
    assert capsys.readouterr().err == ""


def test_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(UsageError, match="tqdm is not installed"), progress_bar(0, 8):
        pass


def test_the_bar_closes_after_an_error(capsys):
    with pytest.raises(ZeroDivisionError), progress_bar(0, 8) as show:
        show(1, 1 / 0)
    assert capsys.readouterr().err.endswith("\n")
