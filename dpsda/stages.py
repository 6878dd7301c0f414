"""The stages of a run: what its ledger calls them, and where each keeps its configuration.

A run begins with any of these but resampling, which goes on with the texts of any other, and replaces its release.
Aug-PE may go on with the samples of fine-tuning, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpsda.privacy.ledger import Ledger

AUGPE = "augpe"
FINETUNE = "finetune"
PREDICT = "predict"
RESAMPLE = "resample"

CLUSTERS = "clusters"  # the one release of resampling, for which a training may leave budget

SAMPLES = "samples"  # what fine-tuning draws from its model; it costs nothing, so it has a configuration of its own
ENSEMBLE = "ensemble"  # what `predict` answers with; its training costs nothing, as nothing of it leaves private/

# options that configurations of earlier versions do not have, with what runs did then
AS_BEFORE = {
    AUGPE: {
        "hub_correction": "none",
        "hub_strength": 0.0,
        "in_context_share": 0.0,
        "first_texts": "prompts",
        "labels_from": "prompts",
        "attributes": "rows",
        "marginals": 2,
        "marginals_noise": 1.0,
        "agreement": 0.0,
    },
    FINETUNE: {
        "attributes": "none",
        "marginals": 2,
        "marginals_noise": 5.0,
    },
}

# configurations of a stage that name the data; of a folder with more than one, what an earlier one here says holds
# unless a later one says something else
OF_DATA = (RESAMPLE, FINETUNE, AUGPE, ENSEMBLE)


def went_on(ledger: Ledger, stage: str) -> bool:
    """Whether another stage has gone on with what a stage had made."""
    order = builders(ledger)
    return stage in order and order[-1] != stage


def builders(ledger: Ledger) -> list[str]:
    """The stages of whatever was released, or kept by Aug-PE, which may do that without a release, in order."""
    lines = (x for x in ledger.lines if x["type"] == "reserve" or (x["type"] == "made" and x["stage"] == AUGPE))
    return [str(line["stage"]) for line in lines]
