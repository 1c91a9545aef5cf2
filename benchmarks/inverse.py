"""Claim: inverses by Schur complements are right, and take no longer than torch's batched LU.

Forward passes on two threads and on one, where torch's is wrong (two threads, from 151 rows on) and
where it is right. The largest entry of ``M X - I`` stands beside the time.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import alternate, save, summary
from torch import Tensor

from onelip.layers.accretive_inverse import accretive_inverse

SHAPES = ((40, 96), (2, 128), (40, 128), (2, 160), (40, 160), (2, 256), (40, 256), (1, 512))
DTYPES = (torch.float32, torch.complex64)


def main() -> None:
    """Every shape, ratios to torch's batched inverse."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    save(f"inverse_{device}", _rows(device))


def _rows(device: str) -> Iterator[dict[str, Any]]:
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for dtype in DTYPES:
            for count, size in SHAPES:
                yield {"threads": threads, **_row(count, size, dtype, device)}


def _row(count: int, size: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    free = 3 * torch.randn(count, size, size, dtype=dtype, device=device) / size**0.5
    matrices = torch.eye(size, dtype=dtype, device=device) + free - free.mH
    ways: dict[str, Callable[[], Tensor]] = {
        "torch": lambda: torch.linalg.inv_ex(matrices).inverse,
        "one by one": lambda: torch.stack([torch.linalg.inv_ex(m).inverse for m in matrices]),
        "onelip": lambda: accretive_inverse(matrices),
    }
    eye = torch.eye(size, dtype=dtype, device=device)
    residuals = {
        name: float(f"{float((matrices @ way() - eye).abs().max()):.2g}")
        for name, way in ways.items()
    }
    name = str(dtype).removeprefix("torch.")
    times = summary(alternate(ways, rounds=15), "torch")
    return {"dtype": name, "count": count, "size": size, "residuals": residuals, **times}


if __name__ == "__main__":
    main()
