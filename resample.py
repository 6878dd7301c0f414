"""Resample synthetic text towards the private data by one noisy histogram over clusters (Yu et al. 2024, Algorithm 2).

    python resample.py --dataset my_data --result_folder runs/mine --epsilon 5
    python resample.py --config data/rotten_tomatoes/resample.yaml --num_clusters 30 --num_samples 100 --seed 1
    python resample.py --dataset my_data --result_folder runs/new --noise 10 --synthetic_file x.csv --synthetic_public

--result_folder is the run of any other command, whose ledger goes on: --epsilon is for both together. The histogram is
drawn once; the same command with another --num_samples, --seed or --ratio_cap costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpsda.arg_utils import parse, run
from dpsda.instruct.options import ResampleOptions
from dpsda.options import DataOptions, EmbeddingOptions, PrivacyOptions

if TYPE_CHECKING:
    from dpsda.embedding import Embeds

GROUPS = (DataOptions, PrivacyOptions, ResampleOptions, EmbeddingOptions)
LABELS = "no private label is read; labels are those of the synthetic texts"


def main() -> None:
    resample(*parse(None, "python resample.py", __doc__ or "", *GROUPS))


def resample(data: DataOptions, privacy: PrivacyOptions, options: ResampleOptions, embedding: EmbeddingOptions) -> None:
    """One resampling of the run in `options.result_folder`, from its options to its release."""
    root = Path(options.result_folder)
    if options.dry_run:
        budget = f"--noise {privacy.noise:g}" if privacy.epsilon is None else f"--epsilon {privacy.epsilon:g}"
        print(f"would resample {options.synthetic_file or 'the texts'} of {root} by one histogram, within {budget}")
        return
    from dpsda import start
    from dpsda.data import DatasetSpec, load
    from dpsda.instruct import candidates
    from dpsda.instruct.stage import Resampling

    spec = DatasetSpec.read(data.dataset)
    source = candidates.locate(root, options.synthetic_file, options.synthetic_public, protected=privacy.protected)
    frame = candidates.read(source.path, spec)
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share)
    reference = load(spec, data.reference_split) if data.reference_split else None
    with start.open_run(root, corpus, privacy, LABELS) as (folder, ledger):
        config, free = start.configuration(spec, data, privacy, options, embedding)
        facts = Resampling(
            corpus=corpus,
            source=source,
            frame=frame,
            reference=reference,
            reference_public=data.reference_split in spec.public,
            options=options,
            privacy=privacy,
            config=config,
            may_change=free,
            ledger=ledger,
            folder=folder,
            encoder=lambda: _encoder(embedding.feature_extractor, options.device),
        ).run()
    print(facts["statement"])
    print(f"release: {folder.release}")


def _encoder(name: str, device: str) -> Embeds:
    from dpsda.embedding import Encoder

    return Encoder(name, device=device)


if __name__ == "__main__":
    run(main)
