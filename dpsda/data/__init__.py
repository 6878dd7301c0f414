"""Private data sets: what they look like (spec.yaml) and how one is read."""

from dpsda.data.loading import PrivateCorpus, Texts, load, rows, taken
from dpsda.data.spec import DatasetSpec, Label, Split

__all__ = ["DatasetSpec", "Label", "PrivateCorpus", "Split", "Texts", "load", "rows", "taken"]
