"""Small data sets in the Parquet layout of the hub."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

Write = Callable[..., np.ndarray]


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    channels_last = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(channels_last).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "the-cache"
    monkeypatch.setenv("ONELIP_CACHE", str(folder))
    return folder


@pytest.fixture
def write() -> Write:
    """Write random images to a file and return their pixels."""

    def write(
        file: Path,
        shape: tuple[int, int, int] = (1, 28, 28),
        labels: object = (3, 1, 4, 1, 5),
        image_column: str = "image",
        label_column: str = "label",
        kind: str = "PNG",
        spoil: dict[int, object] | None = None,
    ) -> np.ndarray:
        count = len(labels)
        pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)
        encoded = [encode(image, kind) for image in pixels]
        for row, data in (spoil or {}).items():
            encoded[row] = data
        images = [{"bytes": data, "path": f"{row}"} for row, data in enumerate(encoded)]
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({image_column: images, label_column: list(labels)}), file)
        return pixels

    return write
