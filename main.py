"""Aug-PE: differentially private synthetic text from a language model that is only asked for text.

    python main.py --config data/rotten_tomatoes/quickstart.yaml
    python main.py --dataset my_data --epsilon 4 --result_folder runs/mine --model_type embedded:smollm2-135m-instruct
    python main.py --dataset my_data --epsilon 4 --result_folder runs/mine --dry_run
    python main.py --config data/my_data/run.yaml --engine ray --ray_workers 2
    python main.py --config data/yelp/gpt-3.5-turbo.yaml --api_base http://localhost:8000/v1 --model_type my-model

The same command continues a run that was stopped; a larger --epochs or --epsilon extends one that is complete.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpsda.arg_utils import parse, run
from dpsda.augpe.options import AugPEOptions
from dpsda.options import (
    DataOptions,
    EmbeddingOptions,
    EngineOptions,
    ModelOptions,
    PrivacyOptions,
    RemoteOptions,
    RunOptions,
)

if TYPE_CHECKING:
    from apis.api import TextAPI
    from apis.hf_api import HFAPI
    from apis.prompting import PromptBook
    from dpsda.augpe.voting import Voters
    from dpsda.data import PrivateCorpus
    from dpsda.embedding import Embeds
    from dpsda.runs import RunFolder

GROUPS = (
    DataOptions,
    PrivacyOptions,
    AugPEOptions,
    ModelOptions,
    RemoteOptions,
    EmbeddingOptions,
    EngineOptions,
    RunOptions,
)


def main() -> None:
    options = parse(None, "python main.py", __doc__ or "", *GROUPS)
    if not options[-1].dry_run:
        generate(Path(options[-1].result_folder), *options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch), *options)
    print("that was a dry run on made-up records: no model was called, no private record voted, nothing is kept")


def generate(
    root: Path,
    data: DataOptions,
    privacy: PrivacyOptions,
    evolution: AugPEOptions,
    model: ModelOptions,
    remote: RemoteOptions,
    embedding: EmbeddingOptions,
    engine: EngineOptions,
    run: RunOptions,
) -> None:
    """One run of Aug-PE in folder `root`, from its options to its release."""
    from apis.journal import Journal
    from dpsda import release, start, summary
    from dpsda.augpe.evolution import Evolution
    from dpsda.augpe.planning import describe_plan, plan
    from dpsda.augpe.voting import Records
    from dpsda.data import DatasetSpec, load
    from dpsda.dry_run import EchoAPI, HashEncoder, stand_in
    from dpsda.tracking import tracker

    spec = DatasetSpec.read(data.dataset)
    book = _book(spec.folder / start.PROMPTS, evolution, model, embedding, run)
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share)
    reference = load(spec, data.reference_split) if data.reference_split and not run.dry_run else None
    if run.dry_run:
        corpus = stand_in(corpus, privacy.privacy_unit, public_label_counts=privacy.label_counts == "public")
    book.check(evolution.variation_type, [dict(zip(spec.label_columns, cell, strict=True)) for cell in spec.cells])
    with start.open_run(root, corpus, privacy) as (folder, ledger):
        config, free = start.configuration(spec, data, privacy, evolution, model, remote, embedding, engine, run)
        noise = plan(folder, ledger, privacy, evolution, config, free, labelled=bool(spec.labels))
        about = {
            "method": "Aug-PE (Xie et al. 2024)",
            "data set": spec.name,
            "iterations": str(evolution.epochs),
            "model": model.model_type,
            "encoder": embedding.feature_extractor,
        }
        public = data.reference_split in spec.public
        measured = summary.distances_file(folder, data.reference_split or "none", public)
        if release.is_published(folder, ledger, about) and (reference is None or measured.exists()):
            print(f"{root}: this run is complete; a larger --epochs or --epsilon extends it")
        else:
            print(describe_plan(ledger, privacy, evolution, noise, labelled=bool(spec.labels)))
            if engine.engine == "ray" and not run.dry_run:
                api, encoder, voters = _on_ray(data, corpus, model, remote, embedding, engine, folder)
            else:
                api, encoder = EchoAPI(), HashEncoder()
                if not run.dry_run:
                    api, encoder = _models(model, remote, embedding, folder, corpus)
                voters = Records(corpus.texts, corpus.cells, encoder)
            distances = summary.Distances(measured, reference, public, encoder, folder.protected)
            with tracker(folder, ledger, run, distances, privacy, evolution, model, embedding) as observe:
                texts = Evolution(
                    corpus=corpus,
                    voters=voters,
                    options=evolution,
                    public_label_counts=privacy.label_counts == "public",
                    noise_multiplier=noise,
                    ledger=ledger,
                    folder=folder,
                    api=api if run.dry_run else Journal(api, folder.answers),
                    book=book,
                    encoder=encoder,
                    seed=run.seed,
                    observe=observe,
                ).run()
            release.publish(folder, ledger, texts, about)
        if run.dry_run:
            print(f"a real run would ask for {api.prompts:,} texts of {api.tokens:,} tokens together, at most")
        else:
            summary.show(folder, ledger, evolution.epochs, measured, log_private=run.log_private)


def _book(
    path: Path, evolution: AugPEOptions, model: ModelOptions, embedding: EmbeddingOptions, run: RunOptions
) -> PromptBook:
    from apis import blanks
    from apis.prompting import PromptBook

    book = PromptBook.read(path, max_tokens=model.length, use_subcategory=model.use_subcategory, length=model.target())
    if evolution.variation_type != "blank_fill" or run.dry_run:
        return book
    own = [model.model_type] if model.api == "HFGPT" else []
    pieces, whose = blanks.tokens([*own, embedding.feature_extractor])
    print(f"blank_fill: blanks stand for tokens of {whose}")
    return replace(book, pieces=pieces)


def _models(
    model: ModelOptions, remote: RemoteOptions, embedding: EmbeddingOptions, folder: RunFolder, corpus: PrivateCorpus
) -> tuple[TextAPI, Embeds]:
    from dpsda.embedding import Encoder

    api = _remote(model, remote, folder) if model.api == "AzureGPT" else _local(model)()  # first: it may lack a key
    encoder = Encoder(embedding.feature_extractor, device=model.device)
    encoder.check_room(corpus.texts, private=True)
    return api, encoder


def _on_ray(
    data: DataOptions,
    corpus: PrivateCorpus,
    model: ModelOptions,
    remote: RemoteOptions,
    embedding: EmbeddingOptions,
    engine: EngineOptions,
    folder: RunFolder,
) -> tuple[TextAPI, Embeds, Voters]:
    from dpsda import cluster

    served = _remote(model, remote, folder) if model.api == "AzureGPT" else None
    local = None if served else _local(model)
    workers = cluster.start(engine, data, corpus, folder.key_file, embedding, model.device, local)
    print(workers)
    return served or cluster.RayAPI(workers), cluster.RayEncoder(workers), cluster.RayVoters(workers, folder.private)


def _local(model: ModelOptions) -> Callable[[], HFAPI]:
    """What loads the model, here or in another process."""
    from apis.hf_api import HFAPI

    return functools.partial(
        HFAPI,
        model.model_type,
        device=model.device,
        dtype=model.dtype,
        temperature=model.temperature,
        top_k=model.top_k,
        top_p=model.top_p,
        repetition_penalty=model.repetition_penalty,
        do_sample=model.do_sample,
        batch_size=model.batch_size,
    )


def _remote(model: ModelOptions, remote: RemoteOptions, folder: RunFolder) -> TextAPI:
    from apis.azure_api import AzureAPI
    from apis.endpoints import endpoints

    return AzureAPI(
        model.model_type,
        endpoints=endpoints(model.model_type, remote.api_base, remote.model_config and Path(remote.model_config)),
        temperature=model.temperature,
        top_p=model.top_p,
        num_procs=remote.num_procs,
        timeout=remote.timeout,
        max_requests=remote.max_requests,
        max_cost=remote.max_cost,
        prices=remote.prices and Path(remote.prices),
        log=folder.state / "requests.jsonl",
    )


if __name__ == "__main__":
    run(main)
