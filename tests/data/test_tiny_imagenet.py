"""Tiny-ImageNet from its archive's folders and from the hub's files: the same pixels and labels."""

import io
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from onelip.data import SHAPES, load
from onelip.errors import UsageError

NAMES = [f"n{(7919 * k) % 100_000:08d}" for k in range(200)]  # the archive's list is not sorted
ORDER = sorted(NAMES)


def jpeg(kind, seed, size=(64, 64)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(kind).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def pixels_of(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


TRAIN = {
    (NAMES[0], 0): jpeg("RGB", 0),
    (NAMES[0], 10): jpeg("L", 1),
    (NAMES[0], 2): jpeg("RGB", 2),
    (NAMES[7], 0): jpeg("L", 3),
    (NAMES[199], 499): jpeg("RGB", 4),
}
VALID = [(NAMES[7], jpeg("RGB", 5)), (NAMES[3], jpeg("L", 6)), (NAMES[7], jpeg("RGB", 7))]


def lines():
    """The annotations, in an order that is not that of the file names."""
    return "".join(f"val_{9 - k}.JPEG\t{name}\t0\t1\t62\t63\n" for k, (name, _) in enumerate(VALID))


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for name in NAMES:
        (root / "train" / name / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(NAMES) + "\n")
    for (name, number), encoded in TRAIN.items():
        (root / "train" / name / "images" / f"{name}_{number}.JPEG").write_bytes(encoded)
        (root / "train" / name / f"{name}_boxes.txt").write_text("not an image")
    (root / "val/images").mkdir(parents=True)
    (root / "val/val_annotations.txt").write_text(lines())
    for k, (_, encoded) in enumerate(VALID):
        (root / f"val/images/val_{9 - k}.JPEG").write_bytes(encoded)
    (root / "test/images").mkdir(parents=True)  # unlabelled, never read
    (root / "test/images/test_0.JPEG").write_bytes(b"nothing")
    return root


def check(folder, split, images, labels):
    data = load("tiny-imagenet", split, folder)
    assert data.inputs.dtype == torch.uint8
    assert torch.equal(data.inputs, torch.stack([pixels_of(image) for image in images]))
    assert data.labels.tolist() == labels
    assert data.classes == 200
    assert data.note == ("Tiny-ImageNet, validation split" if split == "test" else "")


def test_shape():
    assert SHAPES["tiny-imagenet"] == ((3, 64, 64), 200)


@pytest.mark.parametrize("below", [False, True])
def test_folders(archive, below):
    folder = archive.parent if below else archive
    by_class = sorted(TRAIN, key=lambda key: (key[0], f"{key[1]}.JPEG"))
    assert [number for name, number in by_class if name == NAMES[0]] == [0, 10, 2]  # by name
    labels = [ORDER.index(name) for name, _ in by_class]
    for _ in range(2):  # decoded, then from the cache
        check(folder, "train", [TRAIN[key] for key in by_class], labels)
        check(folder, "test", [e for _, e in VALID], [ORDER.index(name) for name, _ in VALID])


@pytest.mark.parametrize("place", [".", "data", "tiny-imagenet/data"])
def test_hub_layout(tmp_path, place):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    for split, files in (("train", [*TRAIN.values()]), ("valid", [e for _, e in VALID])):
        columns = {
            "image": [{"bytes": encoded, "path": None} for encoded in files],
            "label": list(range(len(files))),
        }
        pq.write_table(
            pa.table(columns), folder / f"{split}-00000-of-00001-0123456789abcdef.parquet"
        )
    check(tmp_path, "train", [*TRAIN.values()], [*range(5)])
    check(tmp_path, "test", [e for _, e in VALID], [0, 1, 2])


def test_the_hubs_test_split_is_not_asked_for(tmp_path, write):
    write(tmp_path / "test-00000-of-00001.parquet", (3, 64, 64))
    with pytest.raises(UsageError, match=r"no valid-\*.parquet for tiny-imagenet in "):
        load("tiny-imagenet", "test", tmp_path)


def test_labels_follow_names_not_the_list(archive):
    """The hub numbers sorted names: a network trained on one form is tested on the other."""
    first = load("tiny-imagenet", "train", archive).labels
    (archive / "wnids.txt").write_text("\n".join(reversed(NAMES)))
    assert torch.equal(load("tiny-imagenet", "train", archive).labels, first)
    assert NAMES != ORDER


def test_added_images_are_seen(archive):
    assert len(load("tiny-imagenet", "train", archive)) == 5
    images = archive / "train" / NAMES[5] / "images"
    (images / "new.JPEG").write_bytes(jpeg("RGB", 9))
    os.utime(images, ns=(1, 1))
    assert len(load("tiny-imagenet", "train", archive)) == 6


def spoil_image(root):
    (root / "train" / NAMES[7] / "images" / f"{NAMES[7]}_0.JPEG").write_bytes(b"\xff\xd8\xff")


def shrink_image(root):
    file = root / "train" / NAMES[7] / "images" / f"{NAMES[7]}_0.JPEG"
    file.write_bytes(jpeg("RGB", 0, (32, 64)))


def remove_images(root):
    for name, number in TRAIN:
        (root / "train" / name / "images" / f"{name}_{number}.JPEG").unlink()


@pytest.mark.parametrize(
    ("split", "damage", "message"),
    [
        ("train", spoil_image, rf"cannot decode .*{NAMES[7]}_0\.JPEG: replace the file"),
        ("train", shrink_image, r"_0\.JPEG is 3x32x64, expected 3x64x64: is this another data"),
        ("train", remove_images, r"train holds no images: unpack tiny-imagenet-200\.zip again"),
        (
            "train",
            lambda root: (root / "train" / NAMES[9] / "images").rmdir(),
            rf"no .*{NAMES[9]}/images: unpack tiny-imagenet-200\.zip again",
        ),
        (
            "train",
            lambda root: (root / "wnids.txt").write_text("\n".join(NAMES[:-1])),
            r"wnids\.txt lists 199 classes, expected 200",
        ),
        (
            "test",
            lambda root: (root / "wnids.txt").write_text("\n".join([*NAMES[:-1], NAMES[0]])),
            r"wnids\.txt lists 199 classes, expected 200",
        ),
        (
            "test",
            lambda root: (root / "val/val_annotations.txt").unlink(),
            r"no .*val_annotations\.txt: unpack",
        ),
        (
            "test",
            lambda root: (root / "val/images/val_8.JPEG").unlink(),
            r"cannot read .*val_8\.JPEG \(FileNotFoundError\): unpack",
        ),
        (
            "test",
            lambda root: (root / "val/val_annotations.txt").write_text(f"{lines()}val_1.JPEG\n"),
            r"line 4 of .*val_annotations\.txt names the class '', which wnids\.txt does not list",
        ),
    ],
)
def test_damaged_archives(archive, split, damage, message):
    damage(archive)
    with pytest.raises(UsageError, match=message) as caught:
        load("tiny-imagenet", split, archive)
    assert "\n" not in str(caught.value)


def test_missing_pillow(archive, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match=r"pillow is not installed: .*onelip\[data\]"):
        load("tiny-imagenet", "train", archive)


def test_gray_images_of_other_sets(tmp_path, write):
    """Of the right size only: MNIST is still not CIFAR-10."""
    write(tmp_path / "train-0.parquet", (1, 32, 32), labels=[1, 2])
    images = load("cifar10", "train", tmp_path).inputs
    assert images.shape == (2, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 2])
