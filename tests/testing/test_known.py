"""The page of what is known, against the records."""

from pathlib import Path

import torch
from torch import nn

from onelip import export
from onelip.certificates.forward_error import forward_error
from onelip.errors import UnboundedModuleError
from onelip.testing.known import tables
from tests.cases import LAYERS

PAGE = Path(__file__).parents[2] / "docs" / "known.md"


def test_the_page_says_what_the_records_say():
    assert PAGE.read_text().endswith(f"\n\n{tables()}\n"), "python -m onelip.testing.known"


def test_rounding_after_export_is_known_as_the_page_says():
    rows = [line.split(" | ") for line in tables().split("| layer")[1].splitlines()[2:]]
    said = {row[0].strip("| `"): row[3].strip(" |") == "yes" for row in rows}
    for case in LAYERS:
        torch.manual_seed(0)
        layer = case.build().eval()
        try:
            forward_error(nn.Sequential(export(layer)), case.input_shape, 1.0)
            known = True
        except UnboundedModuleError:
            known = False
        assert said[type(layer).__name__] == known, case.id
