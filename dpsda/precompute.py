"""Embed the private records of a data set before a run (Xie et al. 2024, Algorithm 1, line 1).

    dpsda precompute --config data/yelp/embeddings.yaml
    bash scripts/embeddings.sh --yelp --openreview --pubmed

The vectors go to the private cache of embeddings, in shards, as they are made: a command that was stopped goes on where
it was, and a run with the same encoder finds them by their texts. `dpsda augpe` does the same for what is not there.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

from dpsda.options import DataOptions, DeviceOptions, EmbeddingOptions, EngineOptions


def embed(data: DataOptions, embedding: EmbeddingOptions, engine: EngineOptions, machine: DeviceOptions) -> None:
    """Put the vectors of a private split into the private cache."""
    from dpsda.data import DatasetSpec, load
    from dpsda.embedding import Encoder, private_home

    spec = DatasetSpec.read(data.dataset)
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share)
    start, desc = time.monotonic(), f"{spec.name} {data.split}"
    if engine.engine == "ray":
        from dpsda import cluster

        with tempfile.TemporaryDirectory(dir=private_home()) as scratch:
            key = Path(scratch) / "fingerprint.key"
            workers = cluster.start(engine, data, corpus, key, embedding, machine.device)
            made = len(workers.encoder().missing(corpus.texts, private=True)) if machine.log_private else 0
            workers.embed_records(desc)
    else:
        encoder = Encoder(embedding.feature_extractor, device=machine.device)
        made = encoder.precompute(corpus.texts, private=True, desc=desc)
    seconds = time.monotonic() - start
    figures = ""
    if machine.log_private:  # the number of distinct texts is private
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        texts, rate = f"{made:,} of {corpus.num_records:,} texts new", f"{made / seconds:,.0f} a second"
        figures = f" ({texts}, {rate}, at most {memory:.1f} GiB in this process)"
    print(f"{spec.name}, split {data.split}: embedded by {embedding.feature_extractor} in {seconds:,.0f} s{figures}")


if __name__ == "__main__":
    from dpsda.commands import COMMANDS

    COMMANDS["precompute"].main("dpsda precompute", __doc__)
