"""Tables: published rows beside stored runs, exactly, and bad files in one line."""

import json
import statistics
from copy import deepcopy
from pathlib import Path
from typing import get_args

import pytest

from onelip.errors import UsageError
from onelip.experiments.recipes import RECIPES
from onelip.experiments.tables.published import read_table
from onelip.experiments.tables.text import table_text
from onelip.models.families import CONVOLUTIONS, Activation
from onelip.transport import TASKS

FUNNELS = [(d, n) for d in (2, 4, 8, 16, 32, 64, 128) for n in (4, 16, 64, 256)]
OURS = Path(__file__).parents[3] / "tables"
NAMES = sorted(path.parent.name for path in OURS.glob("*/expected.csv"))
EVERY_TABLE = pytest.mark.parametrize("name", NAMES)

HEADER = "recipe,row,clean,std_clean,certified_36/255,seconds_per_epoch,source"
ROWS = (
    'digits,Small,75.6,0.10,62.30,21.9,"Someone 2020, Table 1"',
    'nowhere,Large,78,,64.4,163,"Someone 2020, Table 1"',
    ',Theirs,70.1,1.25,,,"Someone 2020, Table 1"',
)
DIGITS = RECIPES["digits"]
RUN = {
    "recipe": {
        "name": "digits",
        "about": DIGITS.about,
        "dataset": DIGITS.dataset,
        "model": DIGITS.model,
        "network": dict(DIGITS.network),
        "loss": DIGITS.loss,
        "objective": dict(DIGITS.objective),
        "epochs": DIGITS.epochs,
        "batch_size": DIGITS.batch_size,
        "lr": DIGITS.lr,
        "validation": DIGITS.validation,
        "seed": 0,
    },
    "device": "a machine",
    "data": {"note": ""},
    "train": {
        "complete": True,
        "epochs": [{"seconds": 9.0}] + [{"seconds": 2.0}] * (DIGITS.epochs - 1),
        "seconds": 150.0,
    },
    "certify": {
        "method": "margin, pairwise",
        "level": "real",
        "bound": 1.25,
        "body_bound": 1.0000000001,
        "data": "",
        "test": {"samples": 100, "clean": 0.74, "certified": {repr(36 / 255): 0.6}},
        "seconds": 1.0,
    },
}


@pytest.fixture
def tables(tmp_path):
    """A folder with one table, and none of our runs."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "expected.csv").write_text("\n".join([HEADER, *ROWS, ""]))
    return tmp_path


def store(tables, changes=(), *, table="one", name="a"):
    """A stored run with some entries changed, named by their path."""
    content = deepcopy(RUN)
    for path, value in dict(changes).items():
        *parts, last = path.split("/")
        place = content
        for part in parts:
            place = place[part]
        place[last] = value
    file = tables / table / "results" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def only(tables, name="one"):
    """The runs of the first row, which are of one kind."""
    (ours,) = read_table(name, tables).rows[0][1]
    return ours


def test_text(tables):
    store(tables)
    store(tables, {"recipe/seed": 1, "certify/test/clean": 0.75, "certify/bound": 1.5}, name="b")
    store(tables, {"recipe/name": "else", "certify/data": "Set (JPEG copy)"}, name="c")
    proof = "margin, pairwise, level real; a machine"
    assert table_text(read_table("one", tables)).splitlines() == [
        "one: Someone 2020, Table 1; per cent of the test set",
        "",
        "                clean  certified 36/255     s/epoch",
        "Small      75.6 ±0.10       62.30        21.9",
        "  onelip  74.50 ±0.71       60.00 ±0.00  2.00 ±0.00  2 runs; 60 epochs, 2.5 min; "
        f"proved bound 1.500000 (1.000001 in front of the head); {proof}",
        "Large        78              64.4         163        no run stored (nowhere)",
        "Theirs     70.1 ±1.25                                published only",
        "",
        "other runs",
        "  else    74.00             60.00        2.00        1 run; 60 epochs, 2.5 min; "
        f"proved bound 1.250000 (1.000001 in front of the head); Set (JPEG copy); {proof}",
    ]


def test_seeds_are_averaged(tables):
    clean = [0.74, 0.75, 0.79]
    for seed, share in enumerate(clean):
        changes = {"recipe/seed": seed, "recipe/threads": seed, "certify/test/clean": share}
        store(tables, {**changes, "train/seconds": 60.0 * seed}, name=f"seed{seed}")
    ours = only(tables)
    assert ours.seeds == [0, 1, 2]
    assert [Path(file).name for file in ours.files] == ["seed0.json", "seed1.json", "seed2.json"]
    assert ours.mean["clean"] == pytest.approx(76)
    assert ours.std["clean"] == pytest.approx(100 * statistics.stdev(clean))
    assert ours.std["certified_36/255"] == 0
    assert ours.minutes == 1


def test_one_run_has_no_deviation(tables):
    store(tables)
    assert only(tables).std == {}


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"recipe/lr": 0.5}, "lr 0.5"),
        ({"recipe/dataset": "mnist"}, "dataset mnist"),
        ({"recipe/validation": 10}, "validation 10"),
        ({"recipe/precision": "bf16"}, "precision bf16"),
        ({"recipe/objective/offset": 9.0}, "objective.offset 9.0"),
        ({"recipe/network/features": 3}, "network.features 3"),
        ({"recipe/network/an_argument_of_old": 3}, "network.an_argument_of_old 3"),
        ({"device": "another"}, "another"),
        ({"certify/data": "Set (JPEG copy)"}, "Set (JPEG copy)"),
        ({"data": {"note": "of training"}}, "of training"),
        ({"certify/level": "float"}, "margin, pairwise, level float"),
    ],
)
def test_other_runs_of_a_recipe_are_kept_apart_and_say_why(tables, changes, note):
    store(tables)
    store(tables, changes, name="b")
    plain, other = sorted(read_table("one", tables).rows[0][1], key=lambda ours: ours.files)
    assert note in other.notes
    assert note not in plain.notes
    assert len(plain.seeds) == len(other.seeds) == 1


def test_epochs(tables):
    store(tables)
    store(tables, {"recipe/epochs": 3, "train/epochs": [{"seconds": 1}] * 3}, name="short")
    stopped = {"train/complete": False, "train/epochs": [{"seconds": 1}] * 7}
    store(tables, {**stopped, "train/seconds": 1}, name="stopped")
    store(tables, {**stopped, "recipe/epochs": 8, "train/seconds": 2}, name="both")
    nothing = {**stopped, "recipe/name": "nowhere", "recipe/epochs": 3, "train/epochs": []}
    store(tables, nothing, name="unknown")
    (_, ours), (_, (unknown,)), _ = read_table("one", tables).rows
    assert {o.epochs for o in ours} == {
        "60 epochs",
        "3 epochs (recipe: 60)",
        "stopped after 7 of 60 epochs",
        "stopped after 7 of 8 epochs (recipe: 60)",
    }
    assert [o.minutes for o in ours] == sorted((o.minutes for o in ours), reverse=True)
    assert all("epochs" not in note for o in ours for note in o.notes)
    assert unknown.epochs == "stopped after 0 of 3 epochs"
    assert unknown.mean["seconds_per_epoch"] is None


def test_defaults_left_out_or_written_down_are_the_same(tables):
    """The command line writes every argument of a model, a script only those it changes."""
    store(tables, {"recipe/objective": {**DIGITS.objective}})
    network = {"conv_layers": 4, "kernel_size": 3, "head": "unit-rows", "step": None}
    store(tables, {"recipe/seed": 1, "recipe/network": network, "recipe/compile": False}, name="b")
    assert only(tables).seeds == [0, 1]


def test_tuples_are_lists(tables):
    rows = "cpl-s-cifar100,S,1,,,,somewhere"
    (tables / "one" / "expected.csv").write_text(f"{HEADER}\n{rows}\n")
    recipe = RECIPES["cpl-s-cifar100"]
    network = {**recipe.network, "mean": list(recipe.network["mean"])}
    same = {"name": recipe.name, "about": "", "model": recipe.model, "network": network, "seed": 0}
    given = ("dataset", "loss", "epochs", "batch_size", "lr", "crop", "flip", "validation")
    same |= {name: getattr(recipe, name) for name in given}
    store(tables, {"recipe": {**same, "objective": dict(recipe.objective)}})
    assert only(tables).notes == ["margin, pairwise, level real", "a machine"]


@pytest.mark.parametrize(
    ("stored", "found"),
    [({"0.141": 0.6}, None), ({"0.1411764705882353": 0.6}, 60.0), ({repr(36 / 255): 0.0}, 0.0)],
)
def test_only_the_same_radius_counts(tables, stored, found):
    store(tables, {"certify/test/certified": stored})
    assert only(tables).mean["certified_36/255"] == found
    assert ("-  " in table_text(read_table("one", tables))) == (found is None)


def test_a_number_that_not_every_seed_holds_is_left_open(tables):
    store(tables)
    store(tables, {"recipe/seed": 1, "certify/test/certified": {"0.3": 0.5}}, name="b")
    ours = only(tables)
    assert (ours.mean["certified_36/255"], ours.seeds) == (None, [0, 1])
    assert "certified_36/255" not in ours.std
    assert ours.mean["clean"] == pytest.approx(74)


def test_seconds_are_the_median(tables):
    store(tables)
    assert only(tables).mean["seconds_per_epoch"] == 2


def test_bounds_are_rounded_upwards_and_the_largest(tables):
    store(tables, {"certify/bound": 1.2500001})
    store(tables, {"recipe/seed": 1, "certify/body_bound": 1.0}, name="b")
    ours = only(tables)
    assert (ours.bound, ours.body_bound) == (1.2500001, 1.0000000001)
    text = table_text(read_table("one", tables))
    assert "proved bound 1.250001 (1.000001 in front of the head)" in text


def test_a_run_without_certificate(tables):
    file = store(tables)
    content = json.loads(file.read_text())
    del content["certify"]
    file.write_text(json.dumps(content))
    ours = only(tables)
    assert ours.mean == {"clean": None, "certified_36/255": None, "seconds_per_epoch": 2}
    assert (ours.bound, ours.body_bound) == (None, None)
    text = table_text(read_table("one", tables))
    assert "not certified" in text
    assert "bound" not in text


def test_attacks(tables):
    header = "recipe,row,clean,pgd_36/255,fgm_0.5,source"
    (tables / "one" / "expected.csv").write_text(f"{header}\ndigits,A,90,80,70,somewhere\n")

    def record(samples, count, *shares):
        at = zip((36 / 255, 0.5), shares, strict=True)
        rows = [{"eps": eps, "certified": 0.0, "attacked": share} for eps, share in at]
        more = {"clean": 1.0, "seconds": 1.0}
        return {"attacks": ["one"] * count, "samples": samples, "eps": rows, **more}

    records = {
        "pgd, fgm on 1000 images": record(1000, 3, 0.1, 0.2),
        "pgd on 50 images": record(50, 2, 0.3, 0.4),
        "pgd on 90 images": record(90, 2, 0.5, 0.6),
        "boundary on 90 images": record(90, 1, 0.8, 0.9),
    }
    store(tables, {"attack": records})
    ours = only(tables)
    assert ours.mean["pgd_36/255"] == 50
    assert ours.mean["fgm_0.5"] == 20
    assert ours.notes[-2:] == ["fgm: pgd, fgm on 1000 images", "pgd: pgd on 90 images"]


def test_runs_of_other_tables(tables):
    """A row finds its runs anywhere; runs that no row asks for are those of the same folder."""
    store(tables, table="two")
    store(tables, {"recipe/name": "else"}, table="two", name="else")
    store(tables, {"recipe/name": "nothing"}, name="nothing")
    table = read_table("one", tables)
    assert [len(groups) for _, groups in table.rows] == [1, 0, 0]
    assert [ours.recipe for ours in table.other] == ["nothing"]


def test_a_row_without_recipe_has_no_runs(tables):
    store(tables, {"recipe/name": ""})
    assert [len(groups) for _, groups in read_table("one", tables).rows] == [0, 0, 0]


def test_sources_that_differ_stand_behind_their_rows(tables):
    file = tables / "one" / "expected.csv"
    file.write_text(file.read_text().replace('"Someone 2020, Table 1"', "Another", 1))
    lines = table_text(read_table("one", tables)).splitlines()
    assert lines[0] == "one; per cent of the test set"
    assert lines[3].endswith("Another; no run stored (digits)")
    assert lines[5].endswith("Someone 2020, Table 1; published only")


def test_json(tables):
    store(tables)
    store(tables, {"recipe/seed": 1}, name="b")
    store(tables, {"recipe/name": "else"}, name="c")
    table = read_table("one", tables)
    content = json.loads(table.as_json())
    assert list(content) == ["name", "columns", "rows", "other_runs"]
    assert content["columns"] == ["clean", "certified_36/255", "seconds_per_epoch"]
    row = content["rows"][0]
    assert (row["recipe"], row["row"]) == ("digits", "Small")
    assert row["published"] == {
        "clean": 75.6,
        "std_clean": 0.1,
        "certified_36/255": 62.3,
        "seconds_per_epoch": 21.9,
    }
    assert row["ours"] == [vars(only(tables))]
    assert content["rows"][2]["ours"] == []
    assert content["other_runs"] == [vars(ours) for ours in table.other]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no table of published rows"),
        ("recipe,row,clean\n", "its columns need recipe, row, source"),
        ("recipe,row,source\n", "its columns need recipe, row, source, numbers"),
        ("recipe,row,clean,clean,source\n", "none twice"),
        ("recipe,row,claen,source\n", "no column can be 'claen'; known: clean"),
        ("recipe,row,clean_0.3,source\n", "no column can be 'clean_0.3'"),
        ("recipe,row,naive_min,source\n", "no column can be 'naive_min'; known: clean"),
        ("recipe,row,liplt_sum,clean,source\na,b,101,101,c\n", "101 per cent under clean"),
        ("recipe,row,certified,source\n", "no column can be 'certified'"),
        (
            "recipe,row,pgd,source\n",
            "known: clean, exact, seconds_per_epoch, certified_EPS, fmn_EPS",
        ),
        ("recipe,row,certified_36_255,source\n", "'36_255' is no number"),
        ("recipe,row,certified_0,source\n", "no column can be 'certified_0'"),
        ("recipe,row,certified_inf,source\n", "'inf' is no number"),
        ("recipe,row,certified_x,source\n", "'x' is no number"),
        ("recipe,row,certified_1/0,source\n", "zero"),
        ("recipe,row,certified_0.5,certified_1/2,source\n", "the same radius"),
        ("recipe,row,clean,std_certified_1,source\n", "std_certified_1 belongs to no other"),
        ("recipe,row,clean,source\na,b,1\n", "3 cells instead of 4"),
        ("recipe,row,clean,source\na,b,1,c,d\n", "5 cells instead of 4"),
        ("recipe,row,clean,source\na,b,x,c\n", "'x' is no number"),
        ("recipe,row,clean,source\na,b,nan,c\n", "'nan' is no number"),
        ("recipe,row,clean,source\na,b,-1,c\n", "'-1' is no number"),
        ("recipe,row,clean,source\na,b,100.1,c\n", "100.1 per cent under clean"),
        ('recipe,row,clean,source\na,b,1,"c\n', "no table of published rows"),
        (b"\xff\xfe", "no table of published rows"),
    ],
)
def test_malformed_rows(tables, content, message):
    file = tables / "one" / "expected.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=r"expected\.csv is no table") as error:
        read_table("one", tables)
    assert str(file) in str(error.value)
    assert message in str(error.value)


def test_seconds_may_exceed_a_hundred(tables):
    file = tables / "one" / "expected.csv"
    file.write_text("recipe,row,seconds_per_epoch,source\na,b,163,c\n")
    assert read_table("one", tables).rows[0][0].published == {"seconds_per_epoch": "163"}


MALFORMED = {
    "not JSON": "{",
    "not text": b"\xff\x00",
    "a list": "[]",
    "empty": "{}",
    "half": '{"recipe": {"name": "a"}}',
}
WRONG = [
    {"recipe": 3},
    {"recipe/name": ["a"]},
    {"recipe/model": ["a"]},
    {"recipe/network": 3},
    {"recipe/seed": "x"},
    {"train/epochs": 3},
    {"train/epochs": [{}]},
    {"train/epochs": [{"seconds": "a"}]},
    {"train/seconds": None},
    {"train/seconds": float("inf")},
    {"train/seconds": 10**400},
    {"certify/bound": float("nan")},
    {"certify/body_bound": "1.0"},
    {"certify/test": {}},
    {"certify/test/clean": 74.0},
    {"certify/test/clean": float("nan")},
    {"certify/test/certified": {"x": 0.5}},
    {"certify/test/certified": {"0.3": -0.5}},
    {"certify/test/certified": [0.5]},
    {"constants": [0.5]},
    {"constants": {"naive": 3}},
    {"constants": {"naive": {"sum": "x"}}},
    {"constants": {"liplt": {"sqrt2": float("inf")}}},
    {"attack": ["pgd"]},
    {"attack": {"pgd on 3 images": {}}},
    {"attack": {"pgd on 3 images": {"attacks": ["a"], "samples": 3, "eps": [{"eps": 1}]}}},
]


def assert_names(file, tables):
    with pytest.raises(UsageError, match=r"is no metrics\.json of a run") as error:
        read_table("one", tables)
    assert str(error.value).startswith(str(file))


CONSTANTS = {
    "naive": {"pairwise": 266.0, "sum": 1285.5, "sqrt2": 2759.25},
    "liplt": {"pairwise": 64.125, "sum": 212.75, "sqrt2": 419.0},
}


def constants_table(tables):
    header = "recipe,row,naive_pairwise,naive_sqrt2,liplt_pairwise,liplt_sum,source"
    file = tables / "one" / "expected.csv"
    file.write_text(f"{header}\ndigits,A,266.08,2759.63,64.10,212.68,somewhere\n")


def test_constants(tables):
    """Averages over pairs of classes; they exceed a hundred, and are not per cent."""
    constants_table(tables)
    store(tables, {"constants": CONSTANTS})
    assert only(tables).mean == {
        "naive_pairwise": 266,
        "naive_sqrt2": 2759.25,
        "liplt_pairwise": 64.125,
        "liplt_sum": 212.75,
    }
    lines = table_text(read_table("one", tables)).splitlines()
    assert lines[0] == "one: somewhere"
    shown = [" ".join(line.split()) for line in lines[2:5]]
    assert shown[0] == "naive pairwise naive sqrt2 liplt pairwise liplt sum"
    assert shown[1] == "A 266.08 2759.63 64.10 212.68"
    assert shown[2].startswith("onelip 266.00 2759.25 64.12 212.75 1 run")
    assert json.loads(read_table("one", tables).as_json())["rows"][0]["published"] == {
        "naive_pairwise": 266.08,
        "naive_sqrt2": 2759.63,
        "liplt_pairwise": 64.1,
        "liplt_sum": 212.68,
    }


def test_constants_that_a_run_does_not_hold(tables):
    constants_table(tables)
    store(tables, {"constants": {"liplt": {"pairwise": 64.0, "seconds": 3}, "else": {"sum": 1.0}}})
    assert only(tables).mean == {
        "naive_pairwise": None,
        "naive_sqrt2": None,
        "liplt_pairwise": 64,
        "liplt_sum": None,
    }


def test_constants_beside_accuracies(tables):
    file = tables / "one" / "expected.csv"
    file.write_text("recipe,row,clean,liplt_sum,source\ndigits,A,90,212.68,somewhere\n")
    store(tables, {"constants": CONSTANTS})
    assert only(tables).mean == {"clean": 74, "liplt_sum": 212.75}
    assert "somewhere; per cent of the test set" in table_text(read_table("one", tables))


ORIGIN = {"count": 6400, "held_out": 3200, "shape": [2], "dtype": "float32", "sha256": ""}
CRITIC = {
    "transport": {
        "p": "mnist:test",
        "q": "folder",
        "task": None,
        "critic": None,
        "layer": "bcop",
        "activation": "max-min",
        "widths": None,
        "steps": 3000,
        "batch": 64,
        "lr": 0.01,
        "samples": 6400,
        "held_out": 0.5,
        "confidence": 0.95,
        "diameter": None,
        "exact": False,
        "seed": 0,
        "threads": 1,
        "data": "somewhere",
    },
    "device": "a machine",
    "samples": {
        "p": {**ORIGIN, "name": "mnist:test", "note": ""},
        "q": {**ORIGIN, "name": "folder", "note": "images of a generator"},
    },
    "critic": {"kind": "dcgan", "layer": "bcop", "activation": "max-min", "widths": [16, 32]},
    "train": {"complete": True, "steps": 3000, "seconds": 90.0, "value": 5.0},
    "result": {
        "value": 4.0,
        "lower": 3.5,
        "upper": 4.5,
        "confidence": 0.95,
        "interval": "t",
        "constant": 1.0000001,
        "rounding": 1e-12,
        "samples": [3200, 3200],
    },
}


def distance_table(tables):
    header = "recipe,row,wasserstein,std_wasserstein,source"
    rows = "transport-bcop-max-min,A,129.91,0.11,B\ntransport-rko-relu,C,8,0.2,B"
    (tables / "one" / "expected.csv").write_text(f"{header}\n{rows}\n")


def store_critic(tables, changes=(), name="a"):
    content = deepcopy(CRITIC)
    for path, value in dict(changes).items():
        part, last = path.split("/")
        content[part][last] = value
    file = tables / "one" / "results" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def test_distances(tables):
    """Runs of a layer and an activation, in the unit of the samples, with the largest constant."""
    distance_table(tables)
    store_critic(tables)
    changes = {"result/value": 5.0, "result/constant": 1.0000005, "transport/data": "elsewhere"}
    store_critic(tables, {"transport/seed": 1, "transport/threads": 2, **changes}, "b")
    relu = {"critic/activation": "relu", "transport/activation": "relu"}
    store_critic(tables, {"critic/layer": "rko", **relu}, "c")
    notes = (
        "mnist:test against folder; dcgan 16, 32, batch 64, lr 0.01; 3200 and 3200 held out; "
        "images of a generator; level float; a machine"
    )
    assert table_text(read_table("one", tables)).splitlines() == [
        "one: B",
        "",
        "            wasserstein",
        "A         129.91 ±0.11",
        "  onelip   4.500 ±0.707  2 runs; 3000 steps, 1.5 min; proved bound 1.000001; " + notes,
        "C              8 ±0.2",
        "  onelip   4.000         1 run; 3000 steps, 1.5 min; proved bound 1.000001; " + notes,
    ]
    ours = only(tables)
    assert (ours.seeds, ours.bound, ours.body_bound) == ([0, 1], 1.0000005, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"transport/steps": 10},
        {"transport/p": "else"},
        {"transport/samples": 9},
        {"transport/lr": 0.5},
        {"critic/widths": [8]},
        {"result/rounding": None},
        {"samples/p": {**ORIGIN, "name": "mnist:test", "note": "(JPEG copy)"}},
    ],
    ids=str,
)
def test_critics_trained_otherwise_are_kept_apart(tables, changes):
    distance_table(tables)
    store_critic(tables)
    store_critic(tables, changes, "b")
    assert [len(ours.seeds) for ours in read_table("one", tables).rows[0][1]] == [1, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"result/value": float("nan")},
        {"result/value": "4"},
        {"result/constant": float("inf")},
        {"critic/widths": 3},
        {"samples/p": {}},
        {"train/seconds": None},
        {"transport/seed": None},
    ],
    ids=str,
)
def test_critics_with_a_wrong_entry(tables, changes):
    distance_table(tables)
    assert_names(store_critic(tables, changes), tables)


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_malformed_runs(tables, content):
    file = store(tables)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_names(file, tables)


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_runs_with_a_wrong_entry(tables, changes):
    assert_names(store(tables, changes), tables)


def test_names(tables):
    with pytest.raises(UsageError, match=r"^name a table; known in .*: one$"):
        read_table(None, tables)
    with pytest.raises(UsageError, match=r"^no table '../one'; known in .*: one$"):
        read_table("../one", tables)
    with pytest.raises(UsageError, match=r"known in .*: none$"):
        read_table("one", tables / "one")
    with pytest.raises(UsageError, match=r"no folder .*nowhere: name that of the tables with"):
        read_table("one", tables / "nowhere")


def test_default_folder(tables, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert read_table("mnist-1.58").rows  # those of the checkout
    (tmp_path / "here" / "tables").symlink_to(tables)
    with pytest.raises(UsageError, match="known in tables: one"):
        read_table("mnist-1.58")
    assert read_table("one").name == "one"


@EVERY_TABLE
def test_recipes_of_our_tables_exist(name):
    recipes = {row.recipe for row, _ in read_table(name, OURS).rows} - {""}
    critics = {
        f"transport-{layer}-{activation}"
        for layer in CONVOLUTIONS
        for activation in get_args(Activation)
    }
    pairs = {f"transport-funnels-{d}-{n}" for d, n in FUNNELS}
    assert recipes <= {*RECIPES} | critics | pairs | {f"transport-{task}" for task in TASKS}


def test_funnels_are_one_setting_and_no_interval_is_above():
    """Of all 28 records: the confidence of all together, and nothing that is not so."""
    files = sorted((OURS / "funnels" / "results").glob("extension-*.json"))
    runs = [json.loads(file.read_text()) for file in files]
    rows = {row.recipe: row.published for row, _ in read_table("funnels", OURS).rows if row.recipe}
    assert set(rows) == {f"transport-funnels-{d}-{n}" for d, n in FUNNELS}
    settings, shares = set(), []
    for run in runs:
        chosen, result = run["transport"], run["result"]
        features = run["samples"]["p"]["shape"][0]
        assert chosen["diameter"] == pytest.approx(5 * features**0.5)
        assert chosen["fresh"]
        settings.add(json.dumps({k: v for k, v in chosen.items() if k not in ("task", "diameter")}))
        assert (1 - result["confidence"]) * len(FUNNELS) <= 0.05 * (1 + 1e-9)
        assert result["interval"] == "bernstein"
        assert result["rounding"] < 1e-8
        distance = float(rows[f"transport-{chosen['task']}"]["wasserstein"])
        assert run["truth"] == pytest.approx(distance, abs=1e-5)
        assert result["lower"] <= run["truth"] - 3 * run["truth_error"]
        shares.append(result["value"] / run["truth"])
    assert {run["transport"]["task"] for run in runs} == {f"funnels-{d}-{n}" for d, n in FUNNELS}
    assert (len(runs), len(settings)) == (len(FUNNELS), 1)
    assert min(shares) > 0.5
    assert sum(shares) / len(shares) > 0.85


def test_known_distances_are_those_of_the_tasks_and_hold():
    """Of every stored run: the interval is not above the distance, the value not far below it."""
    table = read_table("known-distances", OURS)
    assert {row.recipe for row, _ in table.rows} == {f"transport-{task}" for task in TASKS}
    for row, runs in table.rows:
        truth = TASKS[row.recipe.removeprefix("transport-")].distance
        assert float(row.published["wasserstein"]) == truth
        for file in [file for ours in runs for file in ours.files]:
            result = json.loads(Path(file).read_text())["result"]
            assert 0.95 * truth < result["value"]
            assert result["lower"] <= truth


@EVERY_TABLE
def test_rows_of_our_tables(name):
    """Accuracy falls with the radius, labels are unique, and recipes train on the right data."""
    rows = [row for row, _ in read_table(name, OURS).rows]
    assert len({row.row for row in rows}) == len(rows)
    for row in rows:
        accuracies = [float(v) for k, v in row.published.items() if k.startswith(("cl", "cert"))]
        assert accuracies == sorted(accuracies, reverse=True)
        assert len(accuracies) > 1 or name in (
            "crm-table-2",
            "bcop-table-4",
            "known-distances",
            "funnels",
        )
        if row.recipe in RECIPES:
            radii = RECIPES[row.recipe].eps
            at = {k.split("_")[1] for k in row.published if k.startswith("certified")}
            exact = {
                "18/255": 18 / 255,
                "36/255": 36 / 255,
                "72/255": 72 / 255,
                "108/255": 108 / 255,
                "1.58": 1.58,
            }
            assert {exact[radius] for radius in at} <= {*radii}


def test_tables_that_quote_the_same_network_agree():
    """Tables 1 and 3 of one paper, 1 and 2 of another, hold some numbers twice."""
    seen, twice = {}, 0
    for name in NAMES:
        for row, _ in read_table(name, OURS).rows:
            for column in ("clean", "certified_36/255", "certified_1.58"):
                if row.recipe and column in row.published:
                    key, value = (row.recipe, column), row.published[column]
                    twice += key in seen
                    assert seen.setdefault(key, value) == value
    assert twice >= 6 * 2 + 2 * 2 + 2 * 2


def test_improved_l2_tables_1_and_3_agree_on_crc():
    columns = ("clean", "certified_36/255")

    def published(table, label):
        rows = {row.row: row.published for row, _ in read_table(table, OURS).rows}
        return [rows[label][column] for column in columns]

    for depth in range(15, 45, 5):
        ours = published("improved-l2-table-1", f"{depth + 1} SOC layers, ours")
        assert ours == published("improved-l2-table-3", f"LipConvnet-{depth} + CRC")


@pytest.mark.parametrize(
    ("name", "count", "label", "numbers"),
    [
        ("bcop-table-1", 16, "CIFAR-10 Large BCOP", "72.16 0.23 58.26 0.17"),
        ("bcop-table-1", 16, "MNIST Small SVCM", "97.24 0.09 28.94 1.58"),
        ("bcop-table-2", 7, "CIFAR-10 KW-Resnet", "61.20 51.96"),
        ("bcop-table-4", 6, "MaxMin BCOP", "9.91 0.11"),
        ("bcop-table-4", 6, "MaxMin RKO", "8.95 0.12"),
        ("bcop-table-4", 6, "MaxMin OSSN", "7.39 0.31"),
        ("bcop-table-4", 6, "ReLU BCOP", "8.28 0.19"),
        ("bcop-table-4", 6, "ReLU RKO", "7.82 0.21"),
        ("bcop-table-4", 6, "ReLU OSSN", "7.06 0.72"),
        ("cpl-table-2", 9, "CPL-XL", "78.5 64.4 48.0 33.0 163"),
        ("cpl-table-2", 9, "SOC+-20", "76.3 62.6 48.7 36.0"),
        ("cpl-table-3", 9, "Cayley (KW3)", "43.3 29.2 18.8 11.0 31.3"),
        ("crm-table-1", 24, "MNIST CRM 4C3F", "96.27 88.04 63.37"),
        ("crm-table-1", 24, "CIFAR-10 Local-Lip-B + MaxMin 6C2F", "77.4 70.4 60.7"),
        ("crm-table-1", 24, "CIFAR-10 LipConvnet 15-CR", "76.39 62.96"),
        ("crm-table-1", 24, "Tiny-ImageNet CRM 8C2F*", "23.97 23.04 17.98"),
        ("crm-table-2", 4, "MNIST 4C3F", "266.08 1285.18 2759.63 64.10 212.68 419.83"),
        ("crm-table-2", 4, "Tiny-ImageNet 8C2F*", "313.62 485.62 2057.00 9.46 14.77 60.37"),
        ("improved-l2-table-1", 16, "26 SOC layers, previous", "77.18 62.46 100.70"),
        ("improved-l2-table-3", 18, "LipConvnet-40 + Fast", "71.60 56.15 39.82 25.63"),
        ("improved-l2-table-4", 18, "LipConvnet-35 + CRC", "51.42 39.01 28.94 20.29"),
    ],
)
def test_published_numbers(name, count, label, numbers):
    rows = {row.row: row.published for row, _ in read_table(name, OURS).rows}
    assert len(rows) == count
    assert list(rows[label].values()) == numbers.split()


def test_both_radii_of_crm_on_cifar10():
    """One published number, at the radius that is printed and at the one that its code uses."""
    rows = {row.recipe: row for row, _ in read_table("crm-table-1", OURS).rows}
    printed, released = rows["crm-cifar10"], rows["crm-cifar10-released"]
    assert printed.published == {
        "clean": "74.82",
        "pgd_36/255": "72.31",
        "certified_36/255": "64.16",
    }
    at_half = {k.replace("36/", "18/"): v for k, v in printed.published.items()}
    assert released.published == at_half
    assert "not the radius" in released.source
    assert RECIPES["crm-cifar10"].eps == RECIPES["crm-cifar10-released"].eps
    assert {18 / 255, 36 / 255} < {*RECIPES["crm-cifar10"].eps}


def test_what_crm_gains():
    """Each kind of constant is larger than the one before, and LipLT below the product."""
    for row, _ in read_table("crm-table-2", OURS).rows:
        numbers = [float(text) for text in row.published.values()]
        naive, liplt = numbers[:3], numbers[3:]
        assert naive == sorted(naive)
        assert liplt == sorted(liplt)
        assert all(4 < a / b < 35 for a, b in zip(naive, liplt, strict=True))


def test_the_stored_mnist_run():
    table = read_table("mnist-1.58", OURS)
    whole = next(ours for ours in table.other if ours.epochs == "45 epochs")
    assert whole.mean["certified_1.58"] == pytest.approx(70.14)
    assert whole.mean["pgd_1.58"] == pytest.approx(78.1)
    assert not any("network" in note for note in whole.notes)
    text = table_text(table)
    assert "8 epochs (recipe: 45)" in text
    assert "network.linear_layers 12; network.features 512" in text
