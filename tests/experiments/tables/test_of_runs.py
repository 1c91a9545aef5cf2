"""Tables and lists of runs: seeds are averaged, and nothing else is."""

import csv
import io
import json
import math
import re
import statistics
from copy import deepcopy
from pathlib import Path

import pytest

from onelip.cli import main
from onelip.errors import UsageError
from onelip.experiments.classification.comparison import find_runs, grouped, matching
from onelip.experiments.classification.numbers import find_key
from onelip.experiments.tables.list_of_runs import runs_list, sorted_by
from onelip.experiments.tables.of_runs import FORMATS, run_table_text, runs_table
from tests.experiments.tables.test_tables import RUN

OTHER = {"count": 8, "made": None, "sha256": 64 * "e"}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def store(name, /, clean=0.5, certified=0.25, **changes):
        content = deepcopy(RUN)
        content["recipe"] |= {"attack_samples": 0, "eps": [0.3], **changes}
        content["certify"]["test"] |= {"clean": clean, "certified": {"0.3": certified}}
        path = Path(name)
        path.mkdir(parents=True)
        (path / "metrics.json").write_text(json.dumps(content))
        return content

    return store


def change(name, **entries):
    path = Path(name) / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def table(*names, **options):
    return runs_table(find_runs(map(Path, names or ["."])), **options)


@pytest.fixture
def sweep(store):
    """Two learning rates; their seeds are stored in another order, the last folders first."""
    shares = {0.01: [0.5, 0.7, 0.61], 0.002: [0.31, 0.42, 0.4]}
    for lr, of_seeds in shares.items():
        for seed, share in reversed([*enumerate(of_seeds)]):
            store(f"s/lr={lr},seed={seed}", clean=share, certified=share / 2, lr=lr, seed=seed)
    return shares


def test_mean_and_deviation_over_seeds(sweep):
    found = table()
    assert found.settings == ["lr"]
    assert [group.differing for group in found.groups] == [{"lr": "0.002"}, {"lr": "0.01"}]
    for (clean, certified), (_, shares) in zip(found.cells, sorted(sweep.items()), strict=True):
        assert clean.mean == pytest.approx(100 * statistics.fmean(shares))
        assert clean.std == pytest.approx(100 * statistics.stdev(shares))
        assert certified.mean == pytest.approx(50 * statistics.fmean(shares))
    assert run_table_text(found, "text").splitlines() == [
        "lr     seeds         clean  certified at 0.3",
        "0.002      3   37.67 ±5.86       18.83 ±2.93",
        "0.01       3  60.33 ±10.02       30.17 ±5.01",
        "",
        "per cent of 100 test images",
        "mean ± sample standard deviation over seeds",
        "certified: margin, pairwise, level real",
        "seeds 0, 1, 2",
    ]


def test_forms(sweep):
    found = table()
    rows = [*csv.DictReader(io.StringIO(run_table_text(found, "csv")))]
    assert float(rows[1]["clean"]) == pytest.approx(100 * statistics.fmean(sweep[0.01]))
    assert float(rows[1]["clean std"]) == pytest.approx(100 * statistics.stdev(sweep[0.01]))
    assert (rows[1]["lr"], rows[1]["runs"], rows[1]["seeds"]) == ("0.01", "3", "0 1 2")
    latex = run_table_text(found, "latex")
    assert r"\begin{tabular}{lrrr}" in latex
    assert r"0.01 & 3 & 60.33 $\pm$ 10.02 & 30.17 $\pm$ 5.01 \\" in latex
    for rule in ("toprule", "midrule", "bottomrule", "end{tabular}"):
        assert latex.count(f"\\{rule}") == 1
    marked = run_table_text(found, "markdown").splitlines()
    assert marked[1] == "| --- | ---: | ---: | ---: |"
    assert marked[3] == "| 0.01 | 3 | 60.33 ± 10.02 | 30.17 ± 5.01 |"
    assert set(FORMATS) == {"text", "csv", "latex", "markdown"}


def test_latex_has_no_open_characters(store):
    store("a", name="50%_of & #1 {x}~^\\")
    store("b")
    latex = run_table_text(table(), "latex")
    assert r"50\%\_of \& \#1 \{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in latex
    assert not re.search(r"(?<!\\)[_#]", latex.replace(r"\usepackage{booktabs}", ""))


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"lr": 0.5}, {"lr": "0.5"}),
        ({"split_seed": 3}, {"split_seed": "3"}),
        ({"eps": [0.3, 0.4]}, {"eps": "[0.3,0.4]"}),
        ({"attack_steps": 3}, {"attack_steps": "3"}),
        ({"network": {"head": "linear"}}, {"network.head": "linear"}),
        ({"name": "mnist"}, {"recipe": "mnist"}),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_are_two_rows(store, changes, differing):
    store("a", seed=0)
    store("b", seed=1, **changes)
    found = table("b", "a")
    assert [len(group.runs) for group in found.groups] == [1, 1]
    assert differing in [group.differing for group in found.groups]
    assert all(cell.std is None for row in found.cells for cell in row)


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ({"device": "another"}, "device"),
        ({"train": {**RUN["train"], "complete": False}}, "trained"),
        ({"certify": {**RUN["certify"], "level": "float"}}, "proof"),
        ({"certify": {**RUN["certify"], "data": "Set (JPEG copy)"}}, "data"),
        ({"data": {"name": "own", "splits": {"test": OTHER}}}, "data"),
    ],
)
def test_what_else_keeps_runs_apart(store, entries, name):
    store("a", seed=0)
    store("b", seed=1)
    change("b", **entries)
    assert table().settings == [name]


def test_defaults_and_threads_do_not(store):
    store("a", seed=0, threads=1)
    store("b", seed=1, threads=2, about="other words", optimizer="adam")
    (group,) = table().groups
    assert [run.seed for run in group.runs] == [0, 1]


def test_a_run_is_counted_once_and_a_seed_that_is_there_twice_is_told(store):
    store("a/x", seed=0)
    store("a/y", seed=0)
    assert len(find_runs([Path("a"), Path("a/x"), Path("a/../a/x")])) == 2
    assert "digits: seed 0 more than once" in table("a").notes


def test_a_number_that_not_every_seed_has_is_open(store):
    store("a", seed=0)
    store("b", seed=1)
    content = json.loads(Path("b/metrics.json").read_text())
    content["certify"]["held_out"] = {"samples": 9, "clean": 0.1, "certified": {"0.3": 0.1}}
    change("b", certify=content["certify"])
    assert table(columns="held-out-clean").cells == [[None]]
    assert " -" in run_table_text(table(columns="held-out-clean"), "text")
    assert table("b", columns="held-out-clean").cells[0][0].mean == pytest.approx(10)
    with pytest.raises(UsageError, match=r"no number 'certified@0.5'; known: clean, certified@0.3"):
        table(columns="certified@0.5")


def test_numbers_by_name():
    known = [("clean", 0.0), ("certified", 36 / 255), ("certified", 0.1), ("fmn", 1.0)]
    for text in ("certified@36/255", "certified@0.141", "certified@0.1411764705882353"):
        assert find_key(text, known) == ("certified", 36 / 255)
    assert find_key("certified@0.1", known) == ("certified", 0.1)
    assert find_key("fmn@1", known) == ("fmn", 1.0)
    for text in ("certified", "clean@1", "certified@0.142", "certified@x", "certified@1/0", ""):
        with pytest.raises(UsageError, match="no number"):
            find_key(text, known)


def test_attacked_is_the_fullest_record(store):
    store("a")
    record = {"attacks": ["x"], "seconds": 1.0, "clean": 0.5}
    rows = [{"eps": 0.3, "certified": 0.2, "attacked": 0.4}]
    attacks = {
        "fgm on 9 images": {**record, "samples": 9, "eps": [{**rows[0], "attacked": 0.3}]},
        "fmn on 100 images": {**record, "samples": 100, "eps": rows},
    }
    change("a", attack=attacks)
    found = table()
    assert found.cells[0][-1].mean == pytest.approx(40)
    assert "attacked: fmn on 100 images" in found.notes
    assert math.isclose(table(columns="fgm@0.3").cells[0][0].mean, 30)


def test_list_filter_and_sort(sweep, store):
    store("other", name="mnist", dataset="mnist", lr=0.01)
    change("other", certify=None)
    broken = Path("broken")
    broken.mkdir()
    (broken / "metrics.json").write_text("{")
    skipped = []
    runs = find_runs([Path()], skipped.append)
    assert len(skipped) == 2
    assert [str(run.path) for run in runs][:2] == ["s/lr=0.002,seed=0", "s/lr=0.002,seed=1"]
    chosen = matching(runs, ["lr=1e-2", "seed=0,2"])
    assert [str(run.path) for run in chosen] == ["s/lr=0.01,seed=0", "s/lr=0.01,seed=2"]
    best = sorted_by(runs, "clean")
    assert best[0].numbers["clean", 0.0] == 70
    assert sorted_by(runs, "certified@0.3")[-1].numbers["clean", 0.0] == 31
    assert [run.identity["lr"] for run in sorted_by(runs, "lr")] == [0.002] * 3 + [0.01] * 3
    lines = runs_list(runs).splitlines()
    assert lines[0].split() == [
        *("run", "recipe", "lr", "seed", "state", "clean", "certified@0.3", "minutes")
    ]
    assert lines[1].split() == [
        *("s/lr=0.002,seed=0", "digits", "0.002", "0", "finished", "31.00", "15.50", "2.5")
    ]
    for conditions in (["lr"], ["lr="], ["foo=3"]):
        with pytest.raises(UsageError):
            matching(runs, conditions)
    with pytest.raises(UsageError, match=r"settings: .*lr"):
        sorted_by(runs, "foo")


def test_commands(sweep, store, capsys):
    def call(line):
        capsys.readouterr()
        return main(line.split()), *capsys.readouterr()

    store("s/begun", seed=9)
    content = json.loads(Path("s/begun/metrics.json").read_text())
    Path("s/begun/metrics.json").write_text(json.dumps({"recipe": content["recipe"]}))
    status, out, err = call("runs s --where seed=0 --sort clean")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[1:]] == [
        "s/lr=0.01,seed=0",
        "s/lr=0.002,seed=0",
    ]
    assert "begun" in call("runs s")[1]
    assert call("runs s --where seed=77")[1] == "no runs\n"
    status, out, err = call("table s --format latex --columns certified@0.3")
    assert status == 0
    assert "s/begun is begun" in err
    assert r"0.01 & 3 & 30.17 $\pm$ 5.01 \\" in out
    assert call("table s/lr=0.01,seed=0 s/lr=0.01,seed=1 --format csv")[1].count("\n") == 2
    for line, message in (
        ("table s --json", "--format text, csv"),
        ("table digits --format csv", "--format is for tables of runs"),
        ("table digits digits", "name folders, or one published table"),
        ("table ./nowhere", "onelip train makes one"),
        ("table s --where seed=77", "no runs to make a table of"),
        ("table s --format word", "onelip table --help"),
        ("runs nowhere", "onelip train makes one"),
        ("runs s --columns foo", "no number 'foo'"),
    ):
        status, out, err = call(line)
        assert (status, out) == (2, ""), line
        assert message in err


def test_groups_are_sorted_by_number(store):
    for offset in (10.0, 2.0, 0.5):
        store(f"o{offset}", objective={"offset": offset, "temperature": 0.25})
    groups = grouped(find_runs([Path()]))
    assert [group.label for group in groups] == ["offset 0.5", "offset 2", "offset 10"]
