"""Ceilings of certified accuracy: graphs by hand, exact distances, and what no classifier does."""

import itertools
from fractions import Fraction

import networkx
import pytest
import torch

from onelip.data import LabelledSet, ceilings
from onelip.data.ceiling import matching
from onelip.errors import UsageError


def on_a_line(places, labels):
    rows = torch.tensor(places, dtype=torch.float64)[:, None]
    return LabelledSet(rows, torch.tensor(labels), max(labels) + 1)


def only(data, *eps):
    return [(row.pairs, row.lost) for row in ceilings(data, eps).rows]


def test_a_path_a_triangle_and_two_that_are_alone():
    # A path of four: a matching of two edges; greedily, from the middle, it would be one.
    path = on_a_line([0, 0.9, 1.7, 2.6], [0, 1, 0, 1])
    assert only(path, 0.46) == [(3, 2)]
    assert only(path, 0.41) == [(1, 1)]
    triangle = LabelledSet(torch.eye(3), torch.arange(3), 3)  # sides of sqrt(2)
    assert only(triangle, 0.70, 0.71) == [(0, 0), (3, 1)]
    alike = on_a_line([0, 0.1, 5, 5.1], [0, 0, 1, 1])  # close, but of equal labels
    assert only(alike, 1.0) == [(0, 0)]
    assert ceilings(alike, [3.0]).rows[0].certified == Fraction(1, 2)


def test_the_largest_matching_of_a_star_is_one():
    star = on_a_line([0, 1, 1.01, 1.02, 1.03], [0, 1, 1, 1, 1])
    (row,) = ceilings(star, [0.6]).rows
    assert (row.pairs, row.lost, row.certified) == (4, 1, Fraction(4, 5))


def test_a_pair_at_twice_the_radius_exactly_is_lost():
    # Images of bytes: distances are whole numbers of 255ths, and no float can be nearer.
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    images[1, 0, 0, 0] = 72
    data = LabelledSet(images, torch.tensor([0, 1]), 2)
    tiny = Fraction(1, 10**30)
    assert only(data, Fraction(36, 255), Fraction(36, 255) - tiny) == [(1, 1), (0, 0)]
    assert ceilings(data, [Fraction(36, 255)]).closest == (0, 1, 72 / 255)
    # A float is the number that it is, a little above or below.
    for eps in (36 / 255, 0.14117):
        assert only(data, eps) == [(1, 1) if Fraction(eps) >= Fraction(36, 255) else (0, 0)]


def test_distances_of_bytes_are_exact():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 9, 7), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (40,), generator=generator)
    whole = images.flatten(1).long()
    squares = (whole[:, None] - whole).square().sum(2)
    pairs = [(i, j) for i, j in itertools.combinations(range(40), 2) if labels[i] != labels[j]]
    data = LabelledSet(images, labels, 3)
    for square in sorted(int(squares[i, j]) for i, j in pairs)[::100]:
        root = Fraction(square * 10**60)  # an eps with (2 eps)^2 a little below and above
        near = Fraction(int(root.numerator**0.5)) / (10**30 * 2 * 255)
        radii = [near, near * (1 + Fraction(1, 10**9))]
        wanted = [
            sum(Fraction(int(squares[i, j])) <= (2 * 255 * eps) ** 2 for i, j in pairs)
            for eps in radii
        ]
        assert [row.pairs for row in ceilings(data, radii).rows] == wanted


def test_floats_count_as_close_only_if_they_surely_are():
    # 1e8 + 1 and 1e8: the difference is lost in a product of the two.
    data = LabelledSet(torch.tensor([[1e8], [1e8 + 1]], dtype=torch.float64), torch.arange(2), 2)
    assert only(data, 0.4, 0.51) == [(0, 0), (1, 1)]
    assert only(data, 0.5) == [(0, 0)]  # at the edge a rounded distance is too far
    assert ceilings(data, [0.5]).closest.distance == pytest.approx(1)


def test_a_ball_classifier_reaches_the_ceiling_and_none_passes_it():
    """Nearest labels on a line: radii are half of the gaps, so one of each pair stays."""
    torch.manual_seed(0)
    places, labels = torch.rand(30).double().sort().values, torch.randint(0, 2, (30,))
    data = LabelledSet(places[:, None], labels, 2)
    for eps in (0.001, 0.01, 0.03):
        (row,) = ceilings(data, [eps]).rows
        best = 0
        # The best set of points that no edge joins, by dynamic programming from left to right.
        points = list(zip(places.tolist(), labels.tolist(), strict=True))
        kept = {(): 0}
        for place, label in points:
            following = dict(kept)
            for last, count in kept.items():
                clear = all(label == other or place - where > 2 * eps for where, other in last)
                if clear:
                    near = (*(p for p in last if place - p[0] <= 2 * eps), (place, label))
                    following[near] = max(following.get(near, 0), count + 1)
            kept = following
            best = max(kept.values())
        assert best <= len(points) * row.certified


def test_equal_inputs():
    rows = torch.tensor([[1.0], [1.0], [1.0], [2.0], [2.0]])
    data = LabelledSet(rows, torch.tensor([0, 0, 1, 1, 1]), 2)
    found = ceilings(data, [0.0, 0.1])
    assert (found.repeated, found.contradicted) == (2, 2)
    assert [(row.pairs, row.lost) for row in found.rows] == [(2, 1), (2, 1)]
    assert found.closest.distance == 0


def test_one_label_has_no_ceiling():
    found = ceilings(on_a_line([0, 0], [0, 0]), [1.0])
    assert found.closest is None
    assert found.rows[0].certified == 1


def test_matchings_are_largest_and_have_no_common_ends():
    torch.manual_seed(0)
    for _ in range(20):
        edges = torch.randint(0, 12, (14, 2))
        edges = edges[edges[:, 0] != edges[:, 1]]
        found = matching(edges)
        ends = [end for edge in found for end in edge]
        assert len(ends) == len(set(ends))
        known = {frozenset(edge) for edge in edges.tolist()}
        assert all(frozenset(edge) in known for edge in found)
        wanted = max(
            len(some)
            for size in range(6)
            for some in itertools.combinations(known, size)
            if len(frozenset().union(*some)) == 2 * len(some)
        )
        assert len(found) >= wanted
    assert networkx.is_matching(networkx.Graph(edges.tolist()), found)


def test_bad_radii():
    data = on_a_line([0, 1], [0, 1])
    for eps in ([], [-1.0], [float("nan")], [float("inf")]):
        with pytest.raises(UsageError, match="finite radii"):
            ceilings(data, eps)
