"""Data of one's own: what is read, how it is split, and one line for what cannot be used."""

import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from onelip.data import Source, by_class, open_data
from onelip.data.data_set import digest
from onelip.data.own import holds_own_data
from onelip.data.pixels import decode_pixels
from onelip.errors import UsageError

DRAW = np.random.default_rng(0)


def pixels(*shape, dtype=np.uint8):
    return DRAW.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def picture(file, array, **options):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file, **options)
    return array


def folder(root, counts, size=(4, 6)):
    """Gray images of each class, and their pixels by class."""
    return {
        name: [picture(root / name / f"{n}.png", pixels(*size)) for n in range(count)]
        for name, count in counts.items()
    }


def opened(place, **options):
    return open_data("own", Source(str(place), **options))


def refused(place, message, **options):
    with pytest.raises(UsageError, match=message) as caught:
        opened(place, **options)
    assert "\n" not in str(caught.value)


# images in class folders


def test_class_folders(tmp_path):
    written = folder(tmp_path / "x", {"zebra": 12, "äpfel": 8})
    data = opened(tmp_path / "x")
    assert data.info.shape == (1, 4, 6)
    assert data.info.classes == ("zebra", "äpfel")
    assert data.info.box == (0.0, 1.0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [15, 1, 4]
    found = {}
    for part in (data.train, data.validation, data.test):
        for image, label in zip(part.inputs, part.labels, strict=True):
            found.setdefault(data.info.classes[label], []).append(image[0].numpy().tobytes())
    assert {name: sorted(rows) for name, rows in found.items()} == {
        name: sorted(image.tobytes() for image in images) for name, images in written.items()
    }
    assert data.test.labels.bincount().tolist() == [2, 2]  # of 12 and of 8
    assert "fifth" in data.made["test"]
    again = opened(tmp_path / "x")
    for split in ("train", "validation", "test"):
        assert digest(getattr(data, split)) == digest(getattr(again, split))


def test_given_splits_stay(tmp_path):
    folder(tmp_path / "train", {"a": 5, "b": 5})
    folder(tmp_path / "valid", {"b": 3, "a": 1})
    test = folder(tmp_path / "Test", {"b": 2})
    data = opened(tmp_path)
    assert data.made == {}
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10, 4, 2]
    assert data.test.labels.tolist() == [1, 1]
    assert torch.equal(data.test.inputs[:, 0], torch.from_numpy(np.stack(test["b"])))
    assert data.notes == ["the test split has no image of a"]


def test_numbers_are_ordered_as_numbers(tmp_path):
    folder(tmp_path / "x", {"10": 3, "9": 3})
    assert opened(tmp_path / "x").info.classes == ("9", "10")


def test_gray_color_alpha_palette_and_16_bits(tmp_path):
    gray = picture(tmp_path / "x" / "a" / "0.png", pixels(4, 4))
    color = picture(tmp_path / "x" / "a" / "1.png", pixels(4, 4, 3))
    alpha = picture(tmp_path / "x" / "a" / "2.png", pixels(4, 4, 4))
    deep = picture(tmp_path / "x" / "b" / "0.png", pixels(4, 4, dtype=np.uint16))
    picture(tmp_path / "x" / "b" / "1.png", np.full((4, 4, 4), 7, np.uint8))
    (tmp_path / "x" / "b" / "readme.txt").write_text("no image")
    data = opened(tmp_path / "x")
    every = torch.cat([data.train.inputs, data.validation.inputs, data.test.inputs])
    rows = {image.numpy().tobytes() for image in every}
    for image in (
        np.broadcast_to(gray, (3, 4, 4)),
        color.transpose(2, 0, 1),
        alpha[..., :3].transpose(2, 0, 1),
        np.broadcast_to(np.rint(deep / 257).astype(np.uint8), (3, 4, 4)),
    ):
        assert np.ascontiguousarray(image).tobytes() in rows
    said = " ".join(data.notes)
    assert "1 of 5 images are rounded from 16 bits" in said
    assert "2 of 5 images are read without their transparency" in said
    assert "2 of 5 images are gray, in three channels" in said
    assert "readme.txt" in said


def test_a_turned_photograph_is_turned_back(tmp_path):
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "x.png", exif=exif)
    turned = decode_pixels((tmp_path / "x.png").read_bytes(), "x")
    assert turned[0].tolist() == [[120, 0], [160, 40], [200, 80]]


def test_size_scales_and_crops(tmp_path):
    stripes = np.zeros((8, 16), np.uint8)
    stripes[:, 4:12] = 200  # what is left in the middle
    for number in range(3):
        picture(tmp_path / "x" / "a" / f"{number}.png", stripes)
        picture(tmp_path / "x" / "b" / f"{number}.png", np.full((8, 8), number, np.uint8))
    refused(tmp_path / "x", r"0.png has 8x16 pixels, .*b/0.png 8x8: --size 8 scales and crops")
    data = opened(tmp_path / "x", size=(4, 4))
    assert data.info.shape == (1, 4, 4)
    middle = data.train.inputs[data.train.labels == 0][0, 0]
    assert middle[:, 1:3].eq(200).all()
    assert middle.ge(150).all()  # 0 if the whole image were squeezed
    assert "radii are of those" in data.notes[0]


def test_images_are_decoded_once(tmp_path, monkeypatch):
    folder(tmp_path / "x", {"a": 3, "b": 3})
    first = opened(tmp_path / "x")
    monkeypatch.setattr("onelip.data.own.decoding.decode", None)
    assert digest(opened(tmp_path / "x").train) == digest(first.train)
    picture(tmp_path / "x" / "a" / "0.png", pixels(4, 6))
    os.utime(tmp_path / "x" / "a" / "0.png", ns=(1, 1))
    with pytest.raises(TypeError):
        opened(tmp_path / "x")


def test_a_class_with_one_image_is_trained_on(tmp_path):
    folder(tmp_path / "x", {"a": 8, "b": 1})
    data = opened(tmp_path / "x")
    assert data.train.labels.tolist().count(1) == 1
    assert data.notes[-1] == "a single row is left to train b"


def test_folders_that_cannot_be_used(tmp_path):
    refused(tmp_path / "nowhere", "no file or folder .*nowhere: --data takes a folder with")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no data in .*none: --data takes")
    picture(tmp_path / "flat" / "1.png", pixels(4, 4))
    refused(tmp_path / "flat", "images in .*flat have no classes: put those of each class")
    picture(tmp_path / "flat2" / "train" / "1.png", pixels(4, 4))
    refused(tmp_path / "flat2", "images in .*flat2/train have no classes")
    folder(tmp_path / "tests" / "test", {"a": 3, "b": 3})
    refused(tmp_path / "tests", "has test, but no train: add it")
    folder(tmp_path / "one", {"a": 3})
    refused(tmp_path / "one", r"1 class \(a\): a classifier needs two")
    folder(tmp_path / "empty", {"a": 3, "b": 3})
    (tmp_path / "empty" / "c").mkdir()
    refused(tmp_path / "empty", "class folder 'c' of the training split holds no images")
    folder(tmp_path / "few", {"a": 1, "b": 1})
    refused(tmp_path / "few", "no test split can be drawn .*each class needs two")
    folder(tmp_path / "unequal" / "train", {"a": 3, "b": 3})
    folder(tmp_path / "unequal" / "test", {"a": 3, "c": 3})
    refused(tmp_path / "unequal", r"c/0.png has the class 'c', which the training split has not")
    folder(tmp_path / "bad", {"a": 3, "b": 3})
    (tmp_path / "bad" / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    refused(tmp_path / "bad", r"cannot decode .*bad/b/1.png: replace the file")
    folder(tmp_path / "good", {"a": 3, "b": 3})
    folder(tmp_path / "names", {"é": 2, unicodedata.normalize("NFD", "é"): 2})
    refused(tmp_path / "names", "two folders 'é': put them into one")
    refused(tmp_path / "good", "--label names a column of a table", label="y")


# arrays


def test_arrays_of_every_layout(tmp_path):
    gray, color = pixels(10, 5, 6), pixels(10, 3, 5, 6)
    y = np.repeat(["b", "a"], 5)
    for x, shape in (
        (gray, (1, 5, 6)),
        (color, (3, 5, 6)),
        (color.transpose(0, 2, 3, 1), (3, 5, 6)),
        (color.astype(np.int64), (3, 5, 6)),
        (color.astype(np.uint16) * 257, (3, 5, 6)),
        (color.astype(">f4") / 255, (3, 5, 6)),
    ):
        np.savez(tmp_path / "x.npz", x_train=x, y_train=y, X_test=x, Y_test=y[:, None])
        data = opened(tmp_path / "x.npz")
        assert data.info.shape == shape
        assert data.info.classes == ("a", "b")
        assert data.test.labels.tolist() == [1] * 5 + [0] * 5
        wanted = torch.from_numpy(gray[:, None] if shape[0] == 1 else color)
        if data.test.inputs.dtype == torch.uint8:
            assert torch.equal(data.test.inputs, wanted)
        else:
            assert torch.allclose(data.test.inputs, wanted / 255)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": [1.0]}, "holds a: name the arrays x and y"),
        ({"x": np.zeros((4, 2)), "y": [0, 1, 0]}, "x has 4 rows, y 3"),
        ({"x": np.full((4, 2), np.nan), "y": [0, 1, 0, 1]}, "row 0 of x of .* is infinite or NaN"),
        ({"x": np.full((4, 3, 3), 2.0), "y": [0, 1, 0, 1]}, "pixels from 2 to 2: save uint8"),
        ({"x": np.zeros(4), "y": [0, 1, 0, 1]}, "x of .* is float64 of shape"),
        ({"x": np.zeros((4, 2)), "y": np.eye(4)}, r"y of .* has shape \(4, 4\): one label"),
        ({"x": np.zeros((4, 2)), "y": [0, 1.5, 0, 1]}, "row 1 of y of .* is 1.5: labels name"),
        ({"x": np.zeros((4, 2)), "y": np.array([{}] * 4)}, "cannot read"),
        ({"x": np.zeros((4, 2)), "y": [0, 0, 0, 0]}, "1 class"),
        (
            {
                "x_train": np.zeros((2, 2)),
                "y_train": [0, 1],
                "x_test": np.zeros((1, 2)),
                "y_test": [2],
            },
            "row 0 of y_test has the class '2'",
        ),
        (
            {
                "x_train": np.zeros((2, 2)),
                "y_train": [0, 1],
                "x_val": np.zeros((1, 3)),
                "y_val": [1],
            },
            r"x_val has inputs of \(3,\), x_train of \(2,\)",
        ),
    ],
    ids=str,
)
def test_arrays_that_cannot_be_used(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    refused(tmp_path / "x.npz", message)


def test_a_damaged_archive(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    refused(tmp_path / "x.npz", "cannot read .*x.npz")


# tables


def table(file, rows, header="a,b,label"):
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return file


ROWS = [f"{n}.5,{-n}e2,{'yes' if n % 2 else 'no'}" for n in range(10)]


def test_a_table(tmp_path):
    data = opened(table(tmp_path / "x.csv", ROWS))
    assert data.info.columns == ("a", "b")
    assert data.info.classes == ("no", "yes")
    assert data.info.box is None
    assert data.info.unit == "units of the table"
    assert data.train.inputs.dtype == torch.float64
    assert [len(part) for part in (data.train, data.validation, data.test)] == [7, 1, 2]
    for part in (data.train, data.validation, data.test):
        assert torch.equal(part.inputs[:, 1], -100 * (part.inputs[:, 0] - 0.5))
        assert torch.equal(part.inputs[:, 0].floor().long() % 2, part.labels)
    mean, std = data.train.inputs.mean(0), data.train.inputs.std(0, correction=0)
    assert data.info.mean == pytest.approx(mean.tolist())
    assert data.info.std == pytest.approx(std.tolist())


def test_tables_by_split_in_other_columns_and_formats(tmp_path):
    table(tmp_path / "t" / "train.csv", [r.replace(",", ";") for r in ROWS], "a;b;kind")
    turned = [",".join(reversed(row.split(","))) for row in ROWS[:4]]
    table(tmp_path / "t" / "test.csv", turned, "kind,b,a")
    data = opened(tmp_path / "t", label="kind")
    assert data.test.inputs.tolist() == [[0.5, 0], [1.5, -100], [2.5, -200], [3.5, -300]]
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    columns = {"a": [0.5, 1.5] * 3, "on": [True, False] * 3, "target": [1, 0] * 3}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    data = opened(tmp_path / "x.parquet")
    assert data.info.columns == ("a", "on")
    assert data.info.classes == ("0", "1")


def test_a_constant_column_does_not_loosen_the_bound(tmp_path):
    data = opened(table(tmp_path / "x.csv", [f"{n}00,7,{n % 2}" for n in range(10)]))
    assert data.info.std[1] == data.info.std[0] > 100


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, "x,1,no"], "column 'a' in line 12 of .*x.csv is 'x', no number"),
        ([*ROWS, "1,,no"], "column 'b' in line 12 of .*x.csv is empty"),
        ([*ROWS, "1,inf,no"], "column 'b' in line 12 of .* no finite number"),
        ([*ROWS, "1,2,"], "column 'label' in line 12 of .*x.csv is empty"),
        ([*ROWS, "1,2"], "cannot read .*x.csv"),
        ([f"1,{n},{n}" for n in range(30)], "line 2 of .*: 30 different labels in 30 rows"),
        ([f"1,1,{n % 2}" for n in range(9)], "every column of .* is constant"),
        ([f"{n},{17e8 + n},{n % 2}" for n in range(9)], "column 'b' of .* subtract a number"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, rows, message):
    refused(table(tmp_path / "x.csv", rows), message)


def test_headers_and_files_that_cannot_be_used(tmp_path):
    refused(table(tmp_path / "x.csv", ROWS), "no column 'y' in .*--label COLUMN", label="y")
    refused(table(tmp_path / "x.csv", ROWS, "a,b,c"), "no column 'label' or 'target' or 'class'")
    refused(table(tmp_path / "x.csv", ROWS, "a,a,label"), "two columns 'a'")
    refused(table(tmp_path / "x.csv", ROWS, "1,2,3"), "first line of .* holds numbers")
    refused(table(tmp_path / "x.csv", ROWS), "--size is for image files", size=(4, 4))
    (tmp_path / "x.csv").write_bytes("a,label\n1,\xe4\n".encode("latin-1"))
    refused(tmp_path / "x.csv", "cannot read|no UTF-8")
    (tmp_path / "x.txt").write_text("")
    refused(tmp_path / "x.txt", "cannot read .*x.txt: --data takes")


# the hub's layout


def test_images_of_any_size_in_the_layout_of_the_hub(tmp_path, write, monkeypatch):
    written = write(tmp_path / "data" / "train-0.parquet", (3, 6, 5), labels=[0, 1] * 5)
    table = pq.read_table(tmp_path / "data" / "train-0.parquet")
    features = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    named = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(named, tmp_path / "data" / "train-0.parquet")
    write(tmp_path / "data" / "test-0.parquet", (3, 6, 5), labels=[1, 0])
    assert holds_own_data("cifar10", str(tmp_path))
    data = opened(tmp_path)
    assert (data.info.shape, data.info.classes) == ((3, 6, 5), ("cat", "dog"))
    assert data.test.labels.tolist() == [1, 0]
    assert torch.equal(data.test.inputs, torch.from_numpy(written[:2]))
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path)
    )
    assert digest(opened("hub:me/cats").test) == digest(data.test)
    assert asked == ["me/cats"]
    refused("hub:nothing", "no data set of the hub: --data hub:OWNER/NAME")


def test_published_data_stay_what_they_are(tmp_path, write):
    write(tmp_path / "train-0.parquet", (1, 28, 28))
    assert not holds_own_data("mnist", str(tmp_path))
    assert holds_own_data("cifar10", str(tmp_path))
    assert not holds_own_data("mnist", str(tmp_path / "nowhere"))


# splits


def test_each_class_gives_its_share():
    labels = torch.tensor([0] * 40 + [1] * 20 + [2])
    kept, held = by_class(labels, 12, seed=1)
    assert labels[held].bincount(minlength=3).tolist() == [8, 4, 0]
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(61))
    assert not torch.equal(held, by_class(labels, 12, seed=2)[1])
    with pytest.raises(UsageError, match="choose 1 to 58"):
        by_class(labels, 59, seed=0)
