"""Sweeps: every combination once, resumable, and a worker that is killed costs its own run."""

import json
import os
import shutil
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import safetensors.torch
import torch

from onelip.cli import main
from onelip.data import data_set
from onelip.experiments import executors, jobs
from onelip.experiments.classification import ClassificationFolder
from onelip.experiments.sweeps.axes import parse_grid, point_name, points

TINY = (
    "--network.conv_layers 1 --network.channels 2 --network.hidden_channels 2 "
    "--network.linear_layers 1 --network.features 12 --epochs 3 --eps 0.1,0.3 "
    "--batch_size 64 --lr 5e-3 --attack_samples 0"
)


class InProcess:
    """Runs jobs at once, in this process; what they print goes to their logs."""

    slots = 2

    def __init__(self):
        self.names = []

    def start(self, given):
        return [self._done(job) for job in given]

    def _done(self, job):
        self.names.append(job.name)
        future = Future()
        status = main([*job.arguments])
        future.set_result(status)
        return future

    def stop(self):
        pass


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def executor(monkeypatch):
    made = InProcess()
    monkeypatch.setattr("onelip.cli.sweep._executor", lambda options, folder: made)
    return made


@pytest.fixture
def call(capfd):
    def call(line):
        capfd.readouterr()
        status = main(line.split())
        return status, *capfd.readouterr()

    return call


def test_grid():
    grid = parse_grid(["objective.offset=0.5,1,2", "seed=0..4", "eps=[0.1,0.2],[0.3]"])
    assert grid["seed"] == ("0", "1", "2", "3", "4")
    assert grid["eps"] == ("[0.1,0.2]", "[0.3]")
    assert len(points(grid)) == 3 * 5 * 2
    assert points(grid)[1] == {"objective.offset": "0.5", "seed": "0", "eps": "[0.3]"}
    assert parse_grid(["lr=-2..1"]) == {"lr": ("-2", "-1", "0", "1")}


def test_names_of_folders_are_names_and_differ():
    names = {point_name({"a": value}) for value in ("x/y", "x_y", "../x", "x" * 500, "x" * 501)}
    assert len(names) == 5
    for name in names:
        assert Path(name).name == name
        assert not name.startswith((".", "-"))
        assert len(name) < 150


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sweep", "onelip recipes lists them"),
        ("sweep --grid seed=0", "onelip recipes lists them"),
        ("sweep digits", "--grid FIELD=VALUE,VALUE"),
        ("sweep nope --grid seed=0,1", "onelip recipes lists them"),
        ("sweep digits --grid", "onelip sweep digits --help"),
        ("sweep digits --grid seed", "write FIELD=VALUE,VALUE"),
        ("sweep digits --grid seed=", "write FIELD=VALUE,VALUE"),
        ("sweep digits --grid seed=1,,2", "write FIELD=VALUE,VALUE"),
        ("sweep digits --grid seed=4..0", "smaller number first"),
        ("sweep digits --grid seed=0..99999999", "smaller number first"),
        ("sweep digits --grid seed=1,1", "holds a value twice"),
        ("sweep digits --grid seed=1 seed=2", "in the grid twice"),
        ("sweep digits --grid seed=0,1 --seed 3", "leave one of them out"),
        ("sweep digits --grid lr=1e-3,0.001", "are the same run"),
        ("sweep digits --grid out=a,b", "no setting of a recipe"),
        ("sweep digits --grid name=a,b", "no setting of a recipe"),
        ("sweep digits --grid foo=1,2", "no setting of a recipe"),
        ("sweep digits --grid network.foo=1,2", "onelip sweep digits --help"),
        ("sweep digits --grid epochs=0,1", "--epochs must be positive"),
        ("sweep digits --grid loss=hinge,foo", "known: hinge"),
        ("sweep digits --grid seed=0 --foo 3", "onelip sweep digits --help"),
        ("sweep digits --resume run", "leave digits out"),
        ("sweep --resume run --grid seed=0", "leave --grid out"),
        ("sweep digits --grid seed=0 --workers 0", "--workers must be 1 or more"),
        ("sweep digits --grid seed=0 --only x", "give --resume SWEEP, too"),
        ("sweep cpl-mnist --grid seed=0 --data nowhere", "pass --data DIR"),
        ("sweep --resume nowhere", "onelip sweep makes one"),
        ("sweep digits --grid lr=1e-3..1e-2 --search optuna", "--maximise certified@EPS"),
        ("sweep digits --grid lr=1..0 --search optuna --maximise clean", "is no interval"),
        ("sweep digits --grid lr=a..b --search optuna --maximise clean", "is no interval"),
        ("sweep digits --grid lr=0..1:log --search optuna --maximise clean", "is no interval"),
        ("sweep digits --grid lr=1,1 --search optuna --maximise clean", "LOW..HIGH"),
        ("sweep digits --grid foo=0..1 --search optuna --maximise clean", "no setting of a recipe"),
        ("sweep digits --grid epochs=0..9 --search optuna --maximise clean", "must be positive"),
        (
            "sweep digits --grid lr=0.1..1 --search optuna --maximise certified@0.3",
            "known: clean, certified@0.1, certified@0.25",
        ),
        (
            "sweep digits --grid lr=0.1..1 --search optuna --maximise clean --evaluate test",
            "leave --evaluate out",
        ),
        ("sweep digits --grid lr=0.1..1 --search optuna --maximise clean --trials 0", "--trials"),
        ("sweep digits --search optuna --maximise clean", "--grid FIELD=VALUE,VALUE"),
    ],
)
def test_bad_arguments_leave_nothing(call, line, message):
    status, out, err = call(line)
    assert (status, out) == (2, "")
    assert err.startswith("onelip: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(Path().rglob("*.json"))


def test_every_combination_is_run_once(call, executor):
    line = f"sweep digits --grid objective.offset=0.5,1 loss=cross-entropy seed=3..4 {TINY}"
    status, out, err = call(line)
    assert (status, err) == (0, "")
    assert out.count("%, ") == 4 * 2
    (folder,) = Path("runs").iterdir()
    assert f"onelip table {folder}" in out
    found = {}
    for path in folder.glob("*/metrics.json"):
        recipe = json.loads(path.read_text())["recipe"]
        found[path.parent.name] = (recipe["objective"]["offset"], recipe["seed"])
        assert recipe["network"]["features"] == 12
        assert recipe["epochs"] == 3
    assert sorted(found.values()) == [(0.5, 3), (0.5, 4), (1.0, 3), (1.0, 4)]
    assert found["objective.offset=1,loss=cross-entropy,seed=3"] == (1.0, 3)
    record = json.loads((folder / "sweep.json").read_text())
    assert record["sweep"]["grid"]["seed"] == ["3", "4"]
    assert record["sweep"]["overrides"] == TINY.split()
    assert {run["name"] for run in record["runs"]} == set(found)
    assert record["versions"]["torch"] == torch.__version__

    # The same command finds it, keeps what is finished, and runs what is not.
    lost = folder / "objective.offset=1,loss=cross-entropy,seed=3"
    kept = {path: path.read_bytes() for path in folder.glob("*/model.safetensors")}
    shutil.rmtree(lost)
    (folder / "objective.offset=1,loss=cross-entropy,seed=4" / "metrics.json").write_text("{")
    executor.names.clear()
    status, out, err = call(line)
    assert status == 2
    assert executor.names == [lost.name, "objective.offset=1,loss=cross-entropy,seed=4"]
    assert "2 of 4 runs are finished already" in out
    assert "1 of 4 runs are not finished (objective.offset=1,loss=cross-entropy,seed=4)" in err
    assert {path: path.read_bytes() for path in kept} == kept


def test_another_sweep_does_not_take_the_folder(call, executor):
    assert call(f"sweep digits --grid seed=0 {TINY} --epochs 1 --out s")[0] == 0
    before = Path("s/sweep.json").read_bytes()
    status, _, err = call(f"sweep digits --grid seed=0,1 {TINY} --epochs 1 --out s")
    assert status == 2
    assert "holds a sweep with other settings: choose another --out" in err
    assert "onelip sweep --resume s" in err
    assert call("sweep --resume s --epochs 2")[0] == 2
    assert call("sweep --resume s --only foo")[0] == 2
    assert Path("s/sweep.json").read_bytes() == before
    Path("t").mkdir()
    assert "exists and is not overwritten" in call("sweep digits --grid seed=0 --out t")[2]


def test_a_run_that_fails_does_not_stop_the_others(call, executor):
    status, out, err = call(f"sweep digits --grid validation=5000,150 {TINY} --epochs 1 --out s")
    assert status == 2
    assert "validation=150: clean" in out
    assert "1 of 2 runs are not finished (validation=5000)" in err
    assert not Path("s/validation=5000").exists()
    Path("s/validation=5000").mkdir()  # of a process killed in its first moment
    assert "choose 1 to 1346" in call("sweep --resume s --only validation=5000")[2]


KILLER = """
import os, sys
from onelip.cli import main
from onelip.experiments.classification.training.callbacks import History

real = History.on_train_epoch_start

def killed(self, trainer, module):
    if trainer.current_epoch == 2 and module.recipe.seed == 0:
        os.kill(os.getpid(), 9)
    real(self, trainer, module)

History.on_train_epoch_start = killed
sys.exit(main(sys.argv[1:]))
"""


def weights(path):
    return safetensors.torch.load_file(path / "model.safetensors")


def test_a_killed_worker(call, executor, monkeypatch):
    """It loses one run, the sweep says so, and that run ends as one that nobody killed."""
    Path("killer.py").write_text(KILLER)
    line = f"sweep digits --grid seed=0..1 {TINY}"
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "COMMAND", (sys.executable, os.path.abspath("killer.py")))
        patched.setattr("onelip.cli.sweep._executor", lambda *_: jobs.LocalExecutor(2))
        status, out, err = call(f"{line} --out killed")
    assert status == 2
    assert "seed=0: killed by signal 9 (SIGKILL)" in out
    assert "seed=1: clean" in out
    assert "1 of 2 runs are not finished (seed=0): go on with onelip sweep --resume killed" in err
    session = ClassificationFolder.open("killed/seed=1").read()["sessions"][0]
    assert session["threads"] == 1
    assert torch.load("killed/seed=0/checkpoint.ckpt", weights_only=True)["epoch"] == 1
    executor.names.clear()
    assert call(f"{line} --out killed")[0] == 0
    assert executor.names == ["seed=0"]
    assert call(f"{line} --out whole")[0] == 0
    for seed in ("seed=0", "seed=1"):
        ours, theirs = weights(Path("killed") / seed), weights(Path("whole") / seed)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_worker_waits_for_one_that_outlived_its_sweep(tmp_path):
    with jobs.one_at_a_time(tmp_path / "log"):
        import fcntl

        with (tmp_path / "log").open("ab") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("ignores", [True, False])
def test_workers_end_with_their_sweep(tmp_path, monkeypatch, ignores):
    """Even one that a shell has told to ignore Ctrl-C."""
    handler = "signal.SIG_IGN" if ignores else "signal.default_int_handler"
    (tmp_path / "worker.py").write_text(
        f"import signal, time; signal.signal(signal.SIGINT, {handler})\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, str(tmp_path / "worker.py")))
    monkeypatch.setattr(jobs, "_GRACE", 0.2 if ignores else 60.0)
    executor = jobs.LocalExecutor(1)
    log = tmp_path / "log"
    first, second = executor.start([jobs.Job(name, (), log) for name in "ab"])
    while not log.exists() or "ready" not in log.read_text():
        time.sleep(0.01)
    executor.stop()
    assert first.result() == (-9 if ignores else -2)
    assert second.cancelled()


def test_why_a_job_failed(tmp_path):
    job = jobs.Job("a", ("recipes", "extra"), tmp_path / "logs" / "a.log")
    assert jobs.run_job(job) == 2
    assert jobs.how_it_ended(job, 2).startswith("unrecognized arguments: extra")
    assert jobs.how_it_ended(job, -9) == "killed by signal 9 (SIGKILL)"
    assert jobs.how_it_ended(jobs.Job("a", (), tmp_path / "none"), 3) == "exit status 3"


SEARCH = (
    "sweep digits --grid lr=1e-3..1e-1:log network.head=linear,unit-rows network.features=12..14 "
    "--search optuna --maximise certified@0.1 --out s --trials 4 "
    + TINY.replace("--network.features 12 ", "")
    .replace("--epochs 3", "--epochs 1")
    .replace("--lr 5e-3 ", "")
)


def test_search_sees_held_out_images_alone(call, executor, monkeypatch):
    """And goes on where it ended; a trial that failed is tried again."""
    pytest.importorskip("optuna")
    real, seen = data_set.load, []

    def load(name, split, *more):
        seen.append(split)
        return real(name, split, *more)

    monkeypatch.setattr(data_set, "load", load)
    monkeypatch.setattr(
        executor, "_done", lambda job: broken() if len(executor.names) == 2 else done(job)
    )
    done = type(executor)._done.__get__(executor)

    def broken():
        executor.names.append("broken")
        future = Future()
        future.set_exception(RuntimeError("no such machine"))
        return future

    status, out, err = call(SEARCH)
    assert status == 2
    assert "trial-0002: its worker was lost (no such machine)" in out
    assert "held-out images: clean" in out
    assert "1 of 4 runs are not finished (trial-0002)" in err
    monkeypatch.setattr(executor, "_done", done)
    executor.names.clear()
    before = Path("s/sweep.json").read_text()
    status, out, err = call(SEARCH)
    assert (status, err) == (0, "")
    assert executor.names == ["trial-0002"]
    assert json.loads(before)["runs"] == json.loads(Path("s/sweep.json").read_text())["runs"]
    assert set(seen) == {"train"}
    values = {}
    for path in Path("s").glob("*/metrics.json"):
        record = json.loads(path.read_text())
        assert not {"certify", "attack"} & set(record)
        assert 1e-3 <= record["recipe"]["lr"] <= 1e-1
        assert record["recipe"]["network"]["head"] in ("linear", "unit-rows")
        assert record["recipe"]["network"]["features"] in (12, 13, 14)
        values[path.parent.name] = record["held_out"]["certified"]["0.1"]
    best = max(values, key=values.get)
    assert len(values) == 4
    assert values[best] == max(values.values())
    assert f"held-out-certified@0.1 {100 * values[best]:.2f} %" in out
    assert call(SEARCH)[0] == 0  # nothing is left to do


EXECUTORS = {
    "ray": lambda folder: executors.RayExecutor(2),
    "submitit": lambda folder: executors.SubmititExecutor(2, folder, cluster="local"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param("ray", marks=pytest.mark.slow), "submitit"],  # a cluster takes 20 s
)
def test_executors(tmp_path, name, monkeypatch):
    """Two workers at once, and the status of a command that fails."""
    pytest.importorskip(name)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    executor = EXECUTORS[name](tmp_path)
    assert executor.slots == 2
    words = [("recipes",), ("recipes", "extra")]
    listed = [jobs.Job(f"{n}", w, tmp_path / f"{n}.log", tmp_path) for n, w in enumerate(words)]
    try:
        statuses = [future.result(timeout=300) for future in executor.start(listed)]
    finally:
        executor.stop()
    assert statuses == [0, 2]
    assert "digits" in (tmp_path / "0.log").read_text()
    assert "unrecognized arguments: extra" in jobs.how_it_ended(listed[1], 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXECUTORS)
def test_a_sweep_on_several_machines(call, monkeypatch, name):
    pytest.importorskip(name)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = EXECUTORS[name](Path.cwd())
    monkeypatch.setattr("onelip.cli.sweep._executor", lambda *_: made)
    status, out, err = call(f"sweep digits --grid seed=0..1 {TINY} --epochs 1 --out s")
    assert (status, err) == (0, "")
    assert "all 2 runs are finished" in out


@pytest.mark.parametrize(
    ("package", "options"),
    [("ray", "--on ray"), ("submitit", "--on slurm"), ("optuna", "--search optuna")],
)
def test_packages_that_are_not_installed(call, monkeypatch, package, options):
    monkeypatch.setitem(sys.modules, package, None)
    status, _, err = call(f"sweep digits --grid seed=0..1 --maximise clean {options} --out s")
    assert status == 2
    assert err.count("\n") == 1
    assert "pip install 'onelip[sweep]'" in err


def test_no_slurm_here(call):
    pytest.importorskip("submitit")
    status, _, err = call("sweep digits --grid seed=0..1 --on slurm --out s")
    assert status == 2
    assert "--on local runs here" in err
    assert "give --on slurm" in call("sweep digits --grid seed=0 --slurm a=1 --out t")[2]
