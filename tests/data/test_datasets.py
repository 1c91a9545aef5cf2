"""Loading by name: what comes back, where files are found, what the errors say."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onelip.data import DATASETS, LabelledSet, load
from onelip.errors import UsageError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FILE = "train-00000-of-00001.parquet"


def assert_same(pixels: np.ndarray, data: LabelledSet) -> None:
    assert data.inputs.dtype == torch.uint8
    assert torch.equal(data.inputs, torch.from_numpy(pixels))


def test_digits_are_split_once_and_for_all():
    train, test = load("digits", "train"), load("digits", "test")
    assert train.inputs.shape == (1347, 1, 8, 8)
    assert test.inputs.shape == (450, 1, 8, 8)
    assert train.classes == 10
    assert train.note == ""
    assert int(train.inputs.max()) == 255
    assert int(test.labels.bincount().min()) >= 43
    assert torch.equal(load("digits", "train").inputs, train.inputs)


def test_digits_cover_the_original_set():
    from sklearn.datasets import load_digits

    both = torch.cat([load("digits", split).inputs for split in ("train", "test")])
    rounded = np.rint(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, rounded))


@pytest.mark.parametrize(
    ("name", "shape", "folder", "image_column", "label_column"),
    [
        ("mnist", (1, 28, 28), "mnist", "image", "label"),
        ("fashion-mnist", (1, 28, 28), "fashion_mnist", "image", "label"),
        ("cifar10", (3, 32, 32), "plain_text", "img", "label"),
        ("cifar100", (3, 32, 32), "cifar100", "img", "fine_label"),
        ("cifar10", (3, 32, 32), "data", "image", "label"),
        ("cifar10", (3, 32, 32), ".", "image", "label"),
        ("cifar10", (3, 32, 32), "cifar10-copy/plain_text", "img", "label"),
    ],
)
def test_round_trip(tmp_path, write, name, shape, folder, image_column, label_column):
    pixels = write(
        tmp_path / folder / FILE, shape, image_column=image_column, label_column=label_column
    )
    data = load(name, "train", tmp_path)
    assert_same(pixels, data)
    assert data.labels.tolist() == [3, 1, 4, 1, 5]
    assert data.classes == (100 if name == "cifar100" else 10)
    assert data.note == ""


def test_shards_are_read_in_order(tmp_path, write):
    write(tmp_path / "train-00001-of-00002.parquet", labels=[2, 3])
    write(tmp_path / "train-00000-of-00002.parquet", labels=[0, 1])
    assert load("mnist", "train", tmp_path).labels.tolist() == [0, 1, 2, 3]


def test_a_parent_folder_tells_the_data_sets_apart(tmp_path, write):
    write(tmp_path / "cifar100" / FILE, (3, 32, 32), labels=[99], label_column="fine_label")
    write(tmp_path / "cifar10-jpeg" / FILE, (3, 32, 32), labels=[7], kind="JPEG")
    write(tmp_path / "mnist" / FILE, labels=[1])
    assert load("cifar10", "train", tmp_path).labels.tolist() == [7]
    assert load("mnist", "train", tmp_path).labels.tolist() == [1]


def test_jpeg_is_noted_also_from_the_cache(tmp_path, write):
    write(tmp_path / FILE, (3, 32, 32), kind="JPEG")
    for _ in range(2):
        assert load("cifar10", "train", tmp_path).note == "CIFAR-10 (JPEG copy)"


def test_palette_images_are_converted(tmp_path, write):
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (10, 20, 30)).quantize(2).save(buffer, "PNG")
    write(tmp_path / FILE, (3, 32, 32), labels=[0], spoil={0: buffer.getvalue()})
    pixels = load("cifar10", "train", tmp_path).inputs
    assert pixels[0, :, 0, 0].tolist() == [10, 20, 30]


def test_subset_keeps_order_and_note():
    data = LabelledSet(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), torch.arange(4), 4, "n")
    part = data.subset(torch.tensor([2, 0]))
    assert (len(part), part.labels.tolist(), part.inputs.flatten().tolist()) == (2, [2, 0], [2, 0])
    assert (part.classes, part.note) == (4, "n")


def test_wrong_tensors_are_refused():
    images, labels = torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(UsageError, match="inputs must be images, uint8"):
        LabelledSet(images.int(), labels, 10)
    with pytest.raises(UsageError, match="labels must be int64, one per input"):
        LabelledSet(images, labels[:1], 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("svhn", "train"), "unknown data set 'svhn': choose one of digits, mnist"),
        (("mnist", "valid"), "unknown split 'valid': choose one of train, test"),
        (("mnist", "train", "no/such/folder"), "no folder no/such/folder: pass --data DIR"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        load(*arguments)


def test_every_name_is_accepted(tmp_path):
    for name in set(DATASETS) - {"digits"}:
        with pytest.raises(UsageError, match=rf"no train-\*.parquet for {name} in "):
            load(name, "train", tmp_path)


def test_a_failing_download_points_to_a_folder(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("first line\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UsageError, match=r"cannot download ylecun/mnist .*--data DIR") as caught:
        load("mnist", "train")
    assert "\n" not in str(caught.value)


def test_a_download_is_read_like_a_folder(tmp_path, write, monkeypatch):
    pixels = write(tmp_path / "plain_text" / FILE, (3, 32, 32), image_column="img")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(tmp_path))
    assert_same(pixels, load("cifar10", "train"))


@pytest.mark.parametrize(
    ("module", "package", "name", "local"),
    [
        ("sklearn.datasets", "scikit-learn", "digits", False),
        ("huggingface_hub", "huggingface_hub", "mnist", False),
        ("pyarrow", "pyarrow", "mnist", True),
        ("PIL", "pillow", "mnist", True),
    ],
)
def test_missing_packages_name_the_extra(
    tmp_path, write, monkeypatch, module, package, name, local
):
    write(tmp_path / FILE)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{package} is not installed: .*onelip\[data\]"):
        load(name, "train", tmp_path if local else None)


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason=f"MNIST is not in {SHARED}")
def test_real_mnist():
    data = load("mnist", "test", SHARED)
    assert data.inputs.shape == (10_000, 1, 28, 28)
    assert data.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.note == ""


@pytest.mark.skipif(not (SHARED / "cifar10-jpeg").is_dir(), reason=f"CIFAR-10 is not in {SHARED}")
def test_real_cifar10():
    data = load("cifar10", "test", SHARED)
    assert data.inputs.shape == (10_000, 3, 32, 32)
    assert data.labels.bincount().tolist() == [1000] * 10
    assert data.note == "CIFAR-10 (JPEG copy)"
