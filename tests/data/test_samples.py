"""Reading samples: exact values from every kind of file, and one line for what cannot be read."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from onelip.data import load, read_samples
from onelip.data.samples import Samples, check_pair
from onelip.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def save_images(folder, pixels, suffix="png", mode="RGB"):
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image).convert(mode).save(folder / f"{index:03}.{suffix}")


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(6, 3), (6, 1), (5, 3, 4, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_arrays_keep_their_numbers(tmp_path, shape, dtype):
    array = normal(*shape).astype(dtype)
    np.save("a.npy", array)
    found = read_samples("a.npy")
    assert (found.values.numpy() == array).all()
    assert found.values.dtype == (torch.float64 if dtype is np.float64 else torch.float32)
    assert (found.name, found.note, len(found)) == ("a.npy", "", len(array))


def test_a_list_of_numbers_is_one_column():
    np.save("a.npy", normal(7))
    assert read_samples("a.npy").values.shape == (7, 1)


def test_bytes_are_pixels():
    array = pixels(4, 3, 5, 6)
    np.save("a.npy", array)
    values = read_samples("a.npy").values
    assert values.dtype == torch.float32
    assert (values.numpy() == (array / np.float32(255)).astype(np.float32)).all()
    assert 0 <= values.min() <= values.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors(dtype):
    values = torch.randn(5, 2).to(dtype)
    torch.save(values.requires_grad_(), "a.pt")
    found = read_samples("a.pt").values
    assert not found.requires_grad
    assert (found == values.detach()).all()
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_archives():
    np.savez("two.npz", a=normal(5, 2), b=normal(6, 3))
    np.savez_compressed("one.npz", a=normal(5, 2))
    assert read_samples("two.npz:b").values.shape == (6, 3)
    assert read_samples("two.npz:a").values.shape == (5, 2)
    assert read_samples("one.npz").values.shape == (5, 2)


def test_a_folder_of_images_in_the_order_of_names(tmp_path):
    array = pixels(5, 4, 6, 3)
    save_images(tmp_path / "images", array)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / "._000.png").write_text("what a file system left")
    values = read_samples("images").values
    assert (values.numpy() * 255).round().astype(np.uint8).tolist() == (
        array.transpose(0, 3, 1, 2).tolist()
    )


def test_gray_images_fill_three_channels_where_others_have_colour(tmp_path):
    save_images(tmp_path / "gray", pixels(4, 5, 5), mode="L")
    assert read_samples("gray").values.shape == (4, 1, 5, 5)
    Image.fromarray(pixels(5, 5, 3)).save(tmp_path / "gray" / "x.webp", lossless=True)
    mixed = read_samples("gray").values
    assert mixed.shape == (5, 3, 5, 5)
    assert (mixed[0, 0] == mixed[0, 2]).all()
    assert (mixed[4, 0] != mixed[4, 2]).any()


def test_data_sets():
    train, test = load("digits", "train"), load("digits", "test")
    for text, images in (
        ("digits", train.inputs),
        ("digits:train", train.inputs),
        ("digits:test", test.inputs),
        ("digits:test:7", test.inputs[test.labels == 7]),
    ):
        found = read_samples(text)
        assert (found.values == images.float() / 255).all()
        assert found.name == text
    assert len(read_samples("digits", split="test")) == len(test)
    assert len(read_samples("digits:train", split="test")) == len(train)


def test_the_name_of_a_data_set_comes_before_a_folder(tmp_path):
    save_images(tmp_path / "digits", pixels(4, 5, 5))
    assert len(read_samples("digits")) == 1347
    assert len(read_samples("./digits")) == 4


def test_some_of_them(tmp_path):
    np.save("a.npy", np.arange(100.0))
    whole = set(range(100))
    few, same, other = (read_samples("a.npy", count=30, seed=seed).values for seed in (0, 0, 1))
    assert (few == same).all()
    assert (few != other).any()
    for drawn in (few, other):
        numbers = drawn.flatten().tolist()
        assert len({*numbers}) == 30
        assert {*numbers} <= whole
        assert numbers == sorted(numbers)
    assert read_samples("a.npy", count=100).values.flatten().tolist() == list(range(100))


def test_every_sample_is_drawn_equally_often():
    np.save("a.npy", np.arange(12.0))
    drawn = [read_samples("a.npy", count=4, seed=seed).values.flatten() for seed in range(600)]
    counts = torch.cat(drawn).long().bincount(minlength=12)
    assert counts.sum() == 2400
    assert 150 < counts.min() <= counts.max() < 250  # 200 expected, deviation 12


def encoded(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


BAD = {
    "dict.pt": (encoded({"a": torch.zeros(5, 2)}), "holds dict: save one array or tensor"),
    "pickle.pt": (encoded(Hostile()), "cannot read pickle.pt"),
    "torn.pt": (encoded(torch.zeros(5, 2))[:100], "cannot read torn.pt"),
    "torn.npy": (b"\x93NUMPY", "cannot read torn.npy"),
    "torn.npz": (b"PK", "cannot read torn.npz"),
    "a.csv": (b"1,2", r"cannot read a.csv: save it as .npy, .npz or .pt"),
    "integers.pt": (encoded(torch.arange(8)), "holds torch.int64: save floats, or pixels"),
    "booleans.pt": (encoded(torch.ones(8, 2) > 0), "holds torch.bool: save floats"),
    "complex.pt": (encoded(torch.ones(8, 2) * 1j), "holds torch.complex64: save floats"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, tmp_path, capsys):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_samples(name)
    assert capsys.readouterr().out == ""


ARRAYS = {
    "empty": (normal(0, 3), "holds 0 samples: a distance needs at least 4"),
    "three": (normal(3, 3), "holds 3 samples"),
    "no features": (normal(9, 0), r"shape \(9, 0\): bring it to \(n,\)"),
    "no channels": (normal(5, 8, 8), r"shape \(5, 8, 8\): bring it to"),
    "a number": (np.float64(3.0), "holds 1 samples"),
    "channels last": (pixels(5, 8, 8, 3), "channels come first"),
    "NaN": (np.array([1.0, 2.0, np.nan, 4.0]), "infinite numbers or NaN: leave those"),
    "infinite": (np.array([1.0, 2.0, -np.inf, 4.0]), "infinite numbers or NaN"),
    "objects": (np.array([1, "a", None, 2], dtype=object), "cannot read a.npy"),
    "integers": (np.arange(5), "holds int64: save one array or tensor of floats"),
    "words": (np.array(list("abcd")), "holds <U1: save one array"),
    "long doubles": (np.zeros(5, np.longdouble), "save one array or tensor of floats"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_bad_arrays(name):
    array, message = ARRAYS[name]
    np.save("a.npy", array, allow_pickle=True)
    with pytest.raises(UsageError, match=message):
        read_samples("a.npy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.npy", "no file or folder nowhere.npy: name an .npy"),
        ("nowhere", "or one of digits, mnist"),
        ("nowhere.npz:a", "no file or folder nowhere.npz:a"),
        ("two.npz", r"two.npz holds a, b: name one, two.npz:KEY"),
        ("two.npz:c", "holds a, b: name one"),
        ("digits:tset", "unknown split 'tset': choose one of train, test"),
        ("digits:test:10", "no class '10' in digits: choose 0 to 9"),
        ("digits:test:x", "no class 'x'"),
        ("digits:test:-1", "no class '-1'"),
        ("digits:test:1:2", "write NAME, NAME:SPLIT or NAME:SPLIT:CLASS"),
        ("bare", "no images in bare: it needs .png, .jpg"),
        ("", "no images in"),
        ("sizes", r"sizes/000.png has 5x5 pixels, sizes/big.png 5x6: bring all"),
        ("broken", r"cannot decode broken/000.png: replace the file"),
    ],
)
def test_what_is_not_there(tmp_path, text, message):
    np.savez("two.npz", a=normal(5, 2), b=normal(6, 3))
    (tmp_path / "bare").mkdir()
    save_images(tmp_path / "sizes", pixels(4, 5, 5))
    Image.fromarray(pixels(5, 6)).save(tmp_path / "sizes" / "big.png")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "000.png").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=message) as error:
        read_samples(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("count", [0, -1, 3, 10])
def test_counts_that_do_not_fit(count):
    np.save("a.npy", normal(9, 2))
    with pytest.raises(UsageError, match=rf"--samples {count}: choose 4 to 9"):
        read_samples("a.npy", count=count)


def test_pairs():
    def samples(*shape, dtype=torch.float32):
        return Samples(torch.zeros(*shape, dtype=dtype), "x")

    check_pair(samples(5, 2), samples(7, 2))
    with pytest.raises(UsageError, match=r"shape \(2,\), those of x \(3,\): bring both"):
        check_pair(samples(5, 2), samples(5, 3))
    with pytest.raises(UsageError, match="images to one size"):
        check_pair(samples(5, 1, 8, 8), samples(5, 64))
    with pytest.raises(UsageError, match=r"torch.float32, x torch.float64: save both alike"):
        check_pair(samples(5, 2), samples(5, 2, dtype=torch.float64))
