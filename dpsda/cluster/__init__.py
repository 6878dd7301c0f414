"""The heavy maps of a run on the workers of a Ray cluster: generation, embedding, and votes.

A worker is a process with a language model, an encoder and a range of the private records, each loaded when it is first
needed; `map` gives the tasks to the workers and starts another one for one that dies. What goes through Ray is public:
prompts and answers, candidates and their cells, row ranges. Private texts are read by the worker that owns
their range, from the data set's own file; their vectors lie in the private cache of embeddings, and votes in the
private folder of the run. Noise is drawn on the driver alone, after the votes are there. (A run without noise protects
nothing: its candidates go through Ray as well.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dpsda import embedding
from dpsda.cluster.adapters import RayAPI, RayEncoder, RayVoters
from dpsda.cluster.pool import Workers
from dpsda.cluster.worker import Job, Streams
from dpsda.runs import secret_key

if TYPE_CHECKING:
    from dpsda.data import PrivateCorpus
    from dpsda.options import DataOptions, EmbeddingOptions, EngineOptions

__all__ = ["Job", "RayAPI", "RayEncoder", "RayVoters", "Workers", "start", "writer"]


def start(
    options: EngineOptions,
    data: DataOptions,
    corpus: PrivateCorpus,
    key: Path,
    embeds: EmbeddingOptions,
    device: str,
    api: Callable[[], Streams] | None = None,
) -> Workers:
    """The workers of a run on `corpus`, which is what `data` names; with `api`, they write texts, too. `key` is the
    private file of the fingerprint's key."""
    from dpsda.data import load

    job = Job(
        api,
        functools.partial(embedding.Encoder, embeds.feature_extractor, device=device),
        functools.partial(load, corpus.spec, data.split, file=data.train_data_file, share=data.private_share),
        key.resolve(),
        corpus.fingerprint(secret_key(key)),
    )
    return Workers(options, job, corpus.num_records)


def writer(options: EngineOptions, api: Callable[[], Streams]) -> RayAPI:
    """Workers that write texts and nothing else."""
    return RayAPI(Workers(options, Job(api)))
