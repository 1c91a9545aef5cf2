"""Files that cannot be used: each error names the file and the row."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onelip.data import load
from onelip.errors import UsageError

FILE = "train-00000-of-00001.parquet"


def check(folder, message, name="mnist"):
    with pytest.raises(UsageError, match=message) as caught:
        load(name, "train", folder)
    assert "\n" not in str(caught.value)


def test_not_a_parquet_file(tmp_path):
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    check(tmp_path, rf"cannot read .*{FILE} \(ArrowInvalid\): replace it")


def test_truncated_file(tmp_path, write):
    write(tmp_path / FILE)
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[: len(data) // 2])
    check(tmp_path, f"cannot read .*{FILE}")


def test_damaged_pages(tmp_path, write):
    write(tmp_path / FILE)
    data = bytearray((tmp_path / FILE).read_bytes())
    data[4:400] = b"\xff" * 396
    (tmp_path / FILE).write_bytes(data)
    check(tmp_path, f"cannot read .*{FILE}")


def test_no_image_column(tmp_path, write):
    write(tmp_path / FILE, image_column="picture")
    check(tmp_path, f"no image column in .*{FILE}: rename one of picture, label to image or img")


def test_no_label_column(tmp_path, write):
    write(tmp_path / FILE, label_column="target")
    check(tmp_path, f"no label column in .*{FILE}: .* to label or fine_label")


def test_images_that_are_no_struct(tmp_path):
    pq.write_table(pa.table({"image": [1, 2], "label": [1, 2]}), tmp_path / FILE)
    check(tmp_path, f"column image of .*{FILE} is not a struct with a field 'bytes'")


def test_labels_that_are_no_integers(tmp_path, write):
    write(tmp_path / FILE, labels=["a", "b"])
    check(tmp_path, f"column label of .*{FILE} does not hold integers")


def test_missing_label(tmp_path, write):
    write(tmp_path / FILE, labels=[1, None])
    check(tmp_path, f"column label of .*{FILE} has missing labels")


@pytest.mark.parametrize("label", [-1, 10])
def test_label_out_of_range(tmp_path, write, label):
    write(tmp_path / FILE, labels=[0, 9, label])
    check(tmp_path, rf"label {label} in row 2 of .*{FILE} is outside 0\.\.9")


def test_images_of_another_data_set(tmp_path, write):
    write(tmp_path / FILE)
    check(tmp_path, f"row 0 of .*{FILE} is 1x28x28, expected 3x32x32", name="cifar10")


def test_one_image_of_another_shape(tmp_path, write):
    other = write(tmp_path / "other.parquet", (1, 27, 28), labels=[0])
    encoded = pq.read_table(tmp_path / "other.parquet").column("image")[0].as_py()["bytes"]
    assert other.shape == (1, 1, 27, 28)
    write(tmp_path / FILE, spoil={3: encoded})
    check(tmp_path, f"row 3 of .*{FILE} is 1x27x28, expected 1x28x28")


@pytest.mark.parametrize("data", [b"", None, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_undecodable_image(tmp_path, write, data):
    write(tmp_path / FILE, spoil={2: data})
    check(tmp_path, f"cannot decode the image in row 2 of .*{FILE}")


def test_rows_are_counted_across_pieces(tmp_path, write, monkeypatch):
    monkeypatch.setattr("onelip.data.parquet._ROWS_PER_READ", 2)
    write(tmp_path / FILE, spoil={4: b"?"})
    check(tmp_path, "cannot decode the image in row 4")


def test_no_rows(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    empty = pa.table({"image": pa.array([], kind), "label": pa.array([], pa.int64())})
    pq.write_table(empty, tmp_path / FILE)
    check(tmp_path, f"{FILE} holds no images")
