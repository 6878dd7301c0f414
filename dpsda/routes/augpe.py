"""Aug-PE: from its options to a release, on this machine or on Ray workers, or as a dry run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apis import blanks, engines
from apis.api import TextAPI
from apis.echo import EchoAPI
from apis.journal import Journal
from apis.prompting import PromptBook
from dpsda import embedding, reference, release, start, summary
from dpsda.attributes.marginals import MARGINALS
from dpsda.attributes.options import RowOptions
from dpsda.attributes.release import Rows, marginals_of
from dpsda.augpe.evolution import Evolution
from dpsda.augpe.options import AugPEOptions
from dpsda.augpe.planning import describe_plan, mechanism, plan, settled
from dpsda.augpe.population import Population
from dpsda.augpe.voting import Records, Voters
from dpsda.data import DatasetSpec, PrivateCorpus, load
from dpsda.data.layout import layout
from dpsda.dry_run import HashEncoder, stand_in
from dpsda.embedding import Embeds
from dpsda.errors import InputError
from dpsda.options import (
    ComparedDataOptions,
    EmbeddingOptions,
    EngineOptions,
    ModelOptions,
    PrivacyOptions,
    RemoteOptions,
    TrackedRunOptions,
)
from dpsda.privacy import certificate
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, read_json, read_table
from dpsda.stages import AUGPE, FINETUNE, went_on
from dpsda.tracking import tracker


def generate(
    root: Path,
    data: ComparedDataOptions,
    privacy: PrivacyOptions,
    evolution: AugPEOptions,
    attributes: RowOptions,
    model: ModelOptions,
    remote: RemoteOptions,
    embedding: EmbeddingOptions,
    engine: EngineOptions,
    run: TrackedRunOptions,
    *,
    api: TextAPI | None = None,
) -> None:
    """One run of Aug-PE in folder `root`. `api` writes the texts in the place of the engine that the options of the
    model name."""
    spec = DatasetSpec.read(data.dataset)
    book = _book(spec.folder / start.PROMPTS, evolution, model, embedding, run)
    marginals = marginals_of(spec, attributes)
    rows = marginals is not None
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share, attributes=rows)
    types = layout(spec, corpus.file)
    compared = load(spec, data.reference_split) if data.reference_split and not run.dry_run else None
    if run.dry_run:
        start.tell_lost(corpus)
        corpus = stand_in(corpus, privacy.privacy_unit, public_label_counts=privacy.label_counts == "public")
    if marginals:
        _keeps_rows(spec, evolution)
    if evolution.labels_by_votes and not spec.labels:
        raise InputError(f"--labels_from votes: {spec.folder / 'spec.yaml'} has no labels")
    names = spec.attribute_names
    book.check(evolution.variation_type, spec.rows() if rows else spec.cell_labels, names)
    unnamed = [name for name in names if rows and not book.names(name)]
    if unnamed:
        print(f"warning: no first prompt names {', '.join(unnamed)}, so texts will not fit that; see {start.PROMPTS}")
    with start.open_run(root, corpus, privacy) as (folder, ledger):
        evolution = settled(folder, ledger, evolution)
        samples = None
        if evolution.begins_with_samples and run.dry_run:
            print("a dry run has no samples to begin with: it asks for texts, and does not count what training spends")
        elif evolution.begins_with_samples and not ledger.holds(folder.step(0) / "samples.csv"):
            samples = _samples(folder, ledger, spec, rows=rows)
        chosen = data, privacy, evolution, attributes, model, remote, embedding, engine, run
        config, free = start.configuration(spec, *chosen, prompts=True)
        config["rows"] = start.row_config(folder, corpus) if rows else None
        noise = plan(folder, ledger, privacy, evolution, config, free, labelled=bool(spec.labels), marginals=marginals)
        about = {
            "method": "Aug-PE (Xie et al. 2024)"
            + (" on samples of a fine-tuned generator" if evolution.begins_with_samples else ""),
            **spec.told,
            "iterations": str(evolution.epochs),
            "model": model.model_type,
            "encoder": embedding.feature_extractor,
        }
        if evolution.hub_correction != "none" and evolution.takes_votes:
            about["votes"] = f"corrected for hubs: {evolution.hub_correction}, strength {evolution.hub_strength:g}"
        if marginals:
            about["attributes"] = marginals.told
        if evolution.labels_by_votes:
            about["labels"] = "of each text, by a classifier of the noisy votes"
        public = data.reference_split in spec.public
        measured = reference.distances_file(folder, data.reference_split or "none", public)
        if release.is_published(folder, ledger, about) and (compared is None or measured.exists()):
            print(f"{root}: this run is complete; a larger --epochs or --epsilon extends it")
        else:
            print(describe_plan(ledger, privacy, evolution, noise, labelled=bool(spec.labels), marginals=marginals))
            if marginals and not ledger.charged(MARGINALS):
                unit = str(ledger.header["unit"])
                print(marginals.signal(ledger, mechanism(MARGINALS, unit, noise, evolution, marginals)))
            echo = EchoAPI()
            encoder: Embeds = HashEncoder()
            voters: Voters
            if run.dry_run:
                api, voters = echo, Records(corpus.texts, corpus.cells, encoder)
            else:
                api, encoder, voters = _parts(data, corpus, model, remote, embedding, engine, folder, api)
            distances = reference.Distances(measured, compared, public, encoder, folder.protected)
            with tracker(folder, ledger, run, distances, privacy, evolution, model, embedding) as observe:
                texts = Evolution(
                    corpus=corpus,
                    voters=voters,
                    options=evolution,
                    public_label_counts=privacy.label_counts == "public",
                    noise_multiplier=noise,
                    ledger=ledger,
                    folder=folder,
                    api=api,
                    book=book,
                    encoder=encoder,
                    seed=run.seed,
                    rows=Rows(spec.attributes, marginals, folder, ledger, AUGPE) if marginals else None,
                    samples=samples,
                    observe=observe,
                ).run()
            release.publish(folder, ledger, texts, about, types)
        if run.dry_run:
            print(f"a real run would ask for {echo.prompts:,} texts of {echo.tokens:,} tokens together, at most")
        else:
            summary.show(folder, ledger, evolution.epochs, measured, log_private=run.log_private)


run = start.in_its_folder(
    generate, "that was a dry run on made-up records: no model was called, no private record voted, nothing is kept"
)


def _keeps_rows(spec: DatasetSpec, evolution: AugPEOptions) -> None:
    """InputError where the votes could move a text away from its row."""
    if evolution.labels_by_votes:
        raise InputError(
            f"--labels_from votes: texts would have other labels than the rows of the attributes that "
            f"{spec.folder / 'spec.yaml'} has; give --attributes none"
        )


def _samples(folder: RunFolder, ledger: Ledger, spec: DatasetSpec, *, rows: bool) -> Population:
    """What the generator that was trained in this folder drew; InputError where it is not there, or not all of it, or
    has no rows where `rows` are wanted."""
    shards, certified = folder.state / "samples", folder.shared / certificate.FILE
    done = certified.is_file() and certificate.is_current(read_json(certified), ledger)
    if not ledger.reservations(FINETUNE) or not (done or went_on(ledger, FINETUNE)) or not ledger.holds(shards):
        raise InputError(
            f"{folder.root}: --first_texts samples or both goes on with a finished run of `dpsda finetune`, and none "
            "is here; run that first, with the same --result_folder"
        )
    frame = read_table(shards)
    if rows and not set(spec.attribute_names) <= set(frame):
        raise InputError(f"{folder.root}: the generator here was trained without attributes; give --attributes none")
    return Population.from_frame(frame, spec, spec.attributes if rows else ())


def _book(
    path: Path, evolution: AugPEOptions, model: ModelOptions, embedding: EmbeddingOptions, run: TrackedRunOptions
) -> PromptBook:
    book = PromptBook.read(path, max_tokens=model.length, use_subcategory=model.use_subcategory, length=model.target())
    if evolution.variation_type != "blank_fill" or run.dry_run:
        return book
    own = [model.model_type] if model.loads else []
    pieces, whose = blanks.tokens([*own, embedding.feature_extractor])
    print(f"blank_fill: blanks stand for tokens of {whose}")
    return replace(book, pieces=pieces)


def _parts(
    data: ComparedDataOptions,
    corpus: PrivateCorpus,
    model: ModelOptions,
    remote: RemoteOptions,
    embeds: EmbeddingOptions,
    engine: EngineOptions,
    folder: RunFolder,
    api: TextAPI | None,
) -> tuple[TextAPI, Embeds, Voters]:
    """What writes texts, what embeds them, and the private records where they are. The engine comes first, as it may
    lack a key."""
    if api is None and (engine.engine == "serial" or not model.loads):
        api = engines.engine(model, remote, folder.state)
    if engine.engine == "serial":
        encoder = embedding.Encoder(embeds.feature_extractor, device=model.device)
        encoder.check_room(corpus.texts, private=True)
        assert api is not None
        return Journal(api, folder.answers), encoder, Records(corpus.texts, corpus.cells, encoder)
    from dpsda import cluster

    local = None if api else engines.local(model)
    workers = cluster.start(engine, data, corpus, folder.key_file, embeds, model.device, local)
    print(workers)
    writer, voters = api or cluster.RayAPI(workers), cluster.RayVoters(workers, folder.private)
    return Journal(writer, folder.answers), cluster.RayEncoder(workers), voters
