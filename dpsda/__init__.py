"""Differentially private synthetic text.

    import dpsda

    data = dpsda.dataset("data/reviews", frame, text="review", labels={"stars": ["1", "2", "3", "4", "5"]},
                         prompts={"init": "Write a {label.stars} star review.", "paraphrase": "Rewrite: {text}"})
    run = dpsda.run("augpe", data, "results/reviews", epsilon=4, model_type="embedded:smollm2-135m-instruct")
    print(run.guarantee, run.texts)

`run` takes the options of the commands (`dpsda augpe --help`), and for Aug-PE an engine of one's own: a `TextAPI`,
which answers each `Prompt`. What is wrong is an `InputError`, or a `PrivacyError` where a budget or a ledger refuses.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apis.api import Prompt, TextAPI
    from dpsda.errors import InputError
    from dpsda.library import Run, dataset, read, run
    from dpsda.privacy.errors import PrivacyError

__all__ = ["InputError", "PrivacyError", "Prompt", "Run", "TextAPI", "dataset", "read", "run"]
_HOME = {
    "InputError": "dpsda.errors",
    "PrivacyError": "dpsda.privacy.errors",
    "Prompt": "apis.api",
    "TextAPI": "apis.api",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dpsda' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "dpsda.library")), name)
