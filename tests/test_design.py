"""The picture of the layers is that of the code."""

from __future__ import annotations

import importlib.util

from tests.forks import ROOT


def test_the_picture_of_the_layers_is_up_to_date():
    spec = importlib.util.spec_from_file_location("layers", ROOT / "docs" / "layers.py")
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    assert (ROOT / "docs" / "layers.svg").read_text() == layers.picture(), "python docs/layers.py > docs/layers.svg"
