"""Norms that are proved once inside a context, and that are never older than their weights."""

import threading

import pytest
import torch
from torch import Tensor

from onelip import norms
from onelip.errors import NonFiniteError
from onelip.norms import rounding, spectral
from onelip.norms.proved_once import proved_once
from onelip.norms.rounding import asked_once
from tests.oracles import is_above, norm_below


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What was proved of dense matrices, in turn."""
    made: list[Tensor] = []
    prove = spectral.largest_norm

    def counting(matrices: Tensor, error: Tensor | None = None) -> Tensor:
        made.append(matrices)
        return prove(matrices, error)

    monkeypatch.setattr(spectral, "largest_norm", counting)
    return made


def test_the_same_numbers_are_proved_once(proofs):
    weight = torch.randn(4, 3)
    with proved_once():
        found = [norms.dense(w) for w in (weight, weight, weight.clone(), weight.double())]
    assert len(proofs) == 1
    assert {float(norm) for norm in found} == {float(norms.dense(weight))}


def test_outside_every_question_is_a_proof(proofs):
    weight = torch.randn(4, 3)
    for count in (1, 2):
        norms.dense(weight)
        assert len(proofs) == count


def test_weights_that_change_inside_are_proved_anew(proofs):
    weight = torch.eye(3, dtype=torch.float64)  # exact numbers are these themselves
    with proved_once():
        for factor in (1.0, 3.0, 9.0):
            assert float(norms.dense(weight)) == pytest.approx(factor)
            weight.data.mul_(3)
        assert float(norms.dense(torch.eye(3))) == pytest.approx(1.0)
    assert len(proofs) == 3


def test_a_power_of_two_times_the_numbers_needs_no_proof(proofs):
    weight = torch.randn(4, 3, dtype=torch.float64)
    with proved_once():
        for exponent in (0, 3, -5, 900, -900):
            scaled = weight * 2.0**exponent
            assert is_above(norms.dense(scaled), norm_below(scaled))
    assert len(proofs) == 1


@pytest.mark.parametrize("scale", [2.0**-1074, 2.0**-1070, 2.0**1020])
def test_the_ends_of_the_range_are_rounded_upwards(scale):
    """A root of two of the smallest number is no number; and small ones are not to be lost."""
    matrix = scale * torch.ones(1, 2, dtype=torch.float64)
    wide = torch.tensor([[2.0**1000, 3e-324], [3e-324, 1.0]], dtype=torch.float64)
    with proved_once():
        norms.dense(torch.ones(1, 2))
        assert is_above(norms.dense(matrix), norm_below(matrix))
        assert is_above(norms.dense(wide), norm_below(wide))
        lost = torch.tensor([[2.0**1000, 0.0], [0.0, 1.0]], dtype=torch.float64)
        assert is_above(norms.dense(lost), norm_below(lost))


def test_what_is_done_to_a_result_stays_there(proofs):
    weight = torch.eye(3)
    with proved_once():
        norms.dense(weight).zero_()
        norms.dense(weight).zero_()
        assert float(norms.dense(weight)) >= 1
    assert len(proofs) == 1


def test_other_settings_are_other_norms(proofs):
    weight = torch.randn(2, 2, 3, 3)
    ways = [
        {"image_size": 5},
        {"image_size": 6},
        {"image_size": 5, "padding": 1},
        {"image_size": 5, "padding": 1, "padding_mode": "circular"},
        {"image_size": 5, "stride": 2},
        {"image_size": 5, "dilation": 2},
        {"padding_mode": "circular", "padding": 1, "stride": 2},
        {"padding_mode": "circular", "padding": 1, "stride": 2, "whole_strides": True},
        {},
    ]
    apart = [float(norms.convolution(weight, **way)) for way in ways]
    with proved_once():
        for _ in range(2):
            assert [float(norms.convolution(weight, **way)) for way in ways] == apart
        matrix = torch.eye(2)
        sizes = [norms.dense(matrix, error=torch.tensor(e).double()) for e in (0.0, 0.25, 0.5)]
        assert [float(size) for size in (*sizes, norms.dense(matrix))] == pytest.approx(
            [1.0, 1.25, 1.5, 1.0]
        )
        grouped = [float(norms.convolution(torch.ones(2, 1, 1, 1), groups=g)) for g in (1, 2)]
        assert grouped == pytest.approx([2**0.5, 1.0], rel=1e-6)
    assert len(proofs) == 1


def test_nested_contexts_share_and_leave_nothing(proofs):
    weight = torch.randn(3, 3)
    with proved_once():
        norms.dense(weight)
        with proved_once():
            norms.dense(weight)
        norms.dense(weight)
    assert len(proofs) == 1
    with proved_once():
        norms.dense(weight)
    assert len(proofs) == 2


def test_nothing_is_left_when_something_is_raised(proofs):
    weight = torch.randn(3, 3)

    def fail(inside: bool) -> None:
        with proved_once():
            norms.dense(weight)
            if inside:
                with pytest.raises(ZeroDivisionError):
                    fail(False)
            norms.dense(weight)
            raise ZeroDivisionError

    for count in (1, 2):
        with pytest.raises(ZeroDivisionError):
            fail(True)
        assert len(proofs) == count
    norms.dense(weight)
    assert len(proofs) == 3


def test_another_thread_knows_nothing(proofs):
    weight = torch.randn(3, 3)
    with proved_once():
        norms.dense(weight)
        thread = threading.Thread(target=norms.dense, args=(weight,))
        thread.start()
        thread.join()
    assert len(proofs) == 2


def test_a_norm_that_is_refused_is_refused_again():
    with proved_once():
        for _ in range(2):
            with pytest.raises(NonFiniteError, match="lower lr"):
                norms.dense(torch.full((2, 2), torch.nan))


# Whether subnormal numbers are kept


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With how many threads the processor was asked."""
    asked: list[int] = []
    probe = rounding._probe

    def counting(threads: int) -> Tensor:
        asked.append(threads)
        return probe(threads)

    monkeypatch.setattr(rounding, "_probe", counting)
    return asked


def test_one_question_inside(questions):
    with asked_once():
        assert questions == []  # until a proof needs the answer
        for _ in range(3):
            norms.dense(torch.eye(2))
        with asked_once():
            norms.dense(torch.eye(2))
    assert len(questions) == 1
    norms.dense(torch.eye(2))
    norms.dense(torch.eye(2))
    assert len(questions) == 3


def test_more_threads_are_asked_again(questions):
    before = torch.get_num_threads()
    try:
        with asked_once():
            for threads in (1, 2, 1, 2):
                torch.set_num_threads(threads)
                norms.dense(torch.eye(2))
    finally:
        torch.set_num_threads(before)
    assert questions == [1, 2]


def test_flushing_that_begins_between_two_contexts_is_found():
    with asked_once():
        norms.dense(torch.eye(2))
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush")
    try:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="subnormal"), asked_once():
                norms.dense(torch.eye(2))
        with asked_once():
            for _ in range(2):  # a refusal is no answer
                with pytest.raises(RuntimeError, match="subnormal"):
                    norms.dense(torch.eye(2))
    finally:
        torch.set_flush_denormal(False)
