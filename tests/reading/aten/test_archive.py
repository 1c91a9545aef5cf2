"""A ``.pt2`` file of a stranger runs no code: malicious archives, and harmless ones."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import onelip
from onelip.bounds import Product
from onelip.cli import main
from onelip.errors import UsageError
from onelip.layers import Householder
from onelip.reading import load

Parts = dict[str, bytes]


class _Runs:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def saved(path: Path, *, dynamic: bool = False) -> Path:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).eval()
    batch = {0: torch.export.Dim("batch")} if dynamic else None
    x = torch.zeros(2 if dynamic else 1, 1, 5, 5)
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=(batch,)), path)
    return path


def rewritten(path: Path, change: Callable[[Parts], None]) -> Path:
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        parts = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"{root}/{name}", content)
    return path


def pickled(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(_Runs(mark), buffer)
    return buffer.getvalue()


def _sample_inputs(parts: Parts, mark: Path) -> None:
    parts["data/sample_inputs/model.pt"] = pickled(mark)


def _weights(parts: Parts, mark: Path) -> None:
    config = json.loads(parts["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["use_pickle"] = True
    parts["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    parts["data/weights/weight_0"] = pickled(mark)


def _objects(parts: Parts, mark: Path) -> None:
    name = "data/constants/model_constants_config.json"
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    parts[name] = json.dumps({"config": {"c": entry | {"tensor_meta": None}}}).encode()
    parts["data/constants/opaque_obj_0"] = pickle.dumps(_Runs(mark))


def _replaced(parts: Parts, old: str, new: str) -> None:
    text = parts["models/model.json"].decode()
    assert old in text
    parts["models/model.json"] = text.replace(old, new).encode()


def _size(parts: Parts, mark: Path) -> None:
    text = parts["models/model.json"].decode()
    start = text.index("Symbol(")
    symbol = text[start : text.index(")", start) + 1]
    _replaced(parts, symbol, f"__import__('os').mkdir('{mark}')")


def _operator(parts: Parts, mark: Path) -> None:
    _replaced(parts, "torch.ops.aten.relu.default", "torch.hub.load")


def _file_operator(parts: Parts, mark: Path) -> None:
    _replaced(parts, "torch.ops.aten.relu.default", "torch.ops.aten.from_file.default")


def _tree(parts: Parts, mark: Path) -> None:
    _replaced(parts, "builtins.tuple", "collections.defaultdict")


def _library(parts: Parts, mark: Path) -> None:
    parts["data/aotinductor/model/evil.so"] = b"\x7fELF"


MALICE = {
    "sample inputs": (_sample_inputs, "sample inputs are pickled"),
    "weights": (_weights, "pickled weights"),
    "objects": (_objects, "opaque_obj_0"),
    "a size": (_size, "a size of it is"),
    "an operator": (_operator, "calls 'torch.hub.load'"),
    "an operator on files": (_file_operator, "from_file"),
    "a type of arguments": (_tree, "defaultdict"),
    "a library": (_library, "evil.so"),
}


@pytest.mark.parametrize(("change", "reason"), MALICE.values(), ids=MALICE)
def test_what_may_run_code_is_refused(change, reason, tmp_path: Path, capsys):
    mark = tmp_path / "mark"
    path = saved(tmp_path / "network.pt2", dynamic=True)
    rewritten(path, lambda parts: change(parts, mark))
    with pytest.raises(UsageError, match=reason) as raised:
        load(path)
    assert "--trust" in str(raised.value)
    assert main(["bound", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not mark.exists()


def test_what_may_run_code_within_a_region_is_refused(tmp_path: Path):
    """A graph that an operator computes, such as one without gradients, is looked at, too."""
    path = tmp_path / "network.pt2"
    network = torch.nn.Sequential(Householder(2, order=2)).eval()
    torch.export.save(torch.export.export(network, (torch.zeros(1, 2),)), path)
    assert float(Product().bound(load(path))) < 1.001
    rewritten(path, lambda parts: _replaced(parts, "aten.atan2.default", "aten.from_file.default"))
    with pytest.raises(UsageError, match=r"calls 'torch\.ops\.aten\.from_file"):
        load(path)


@pytest.mark.parametrize("change", [_sample_inputs, _weights, _size], ids=lambda f: f.__name__)
def test_torch_itself_runs_it(change, tmp_path: Path):
    """Controls: without the check each of these makes its folder, and so does ``trust``."""
    mark = tmp_path / "mark"
    path = saved(tmp_path / "network.pt2", dynamic=True)
    rewritten(path, lambda parts: change(parts, mark))
    with pytest.raises(UsageError, match="cannot be read"):
        load(path, trust=True)
    assert mark.is_dir()


def test_a_name_that_comes_twice(tmp_path: Path):
    """Readers of archives disagree on which of the two counts."""
    path = saved(tmp_path / "network.pt2")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"")
    with pytest.raises(UsageError, match="twice"):
        load(path)


def test_a_size_that_is_slow_to_refuse(tmp_path: Path):
    path = saved(tmp_path / "network.pt2", dynamic=True)
    rewritten(path, lambda parts: _replaced(parts, "Symbol(", "1" * 5000 + "!("))
    with pytest.raises(UsageError, match="a size of it"):
        load(path)


@pytest.mark.parametrize("dynamic", [False, True])
def test_harmless_files_are_read_as_before(dynamic, tmp_path: Path):
    path = saved(tmp_path / "network.pt2", dynamic=dynamic)
    found, trusted = load(path), load(path, trust=True)
    x = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    assert torch.equal(found.exact().forward(x), trusted.exact().forward(x))
    assert float(onelip.bounds.Product().bound(found)) == float(
        onelip.bounds.Product().bound(trusted)
    )


def test_deep_nesting_and_other_nonsense(tmp_path: Path):
    path = saved(tmp_path / "network.pt2")
    rewritten(path, lambda parts: parts.update({"models/model.json": b"[" * 10**6}))
    with pytest.raises(UsageError, match="no JSON"):
        load(path)
    rewritten(path, lambda parts: parts.pop("models/model.json"))
    with pytest.raises(UsageError, match=r"models/model\.json"):
        load(path)
    path.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UsageError, match="cannot be read"):
        load(path)
