"""What hubs cost one vote of Aug-PE, and what each correction gives back (docs/hubs.md).

    python benchmarks/hubs.py --config data/rotten_tomatoes/quickstart.yaml --texts 600 --epsilons 1 4

A pool of fresh texts is made from the prompts alone, once; or it is what a run voted on (`--pool
RUN/state/candidates-2.csv`). All private records vote on it, the votes get the noise of a run of `--epochs` votes, and
`--kept` of the texts are kept, by default half: for every correction and strength, three draws of noise, against the
public test split. A csv in --out has a row each, with how unequal the exact votes were (Gini coefficient, the
largest count, the share of the top 1%, and the skewness, by which hubness is measured), and how much they went to what
is near the middle of the candidates.
No ledger holds what is drawn here: it is for embedded public data alone.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import skew, spearmanr

from apis import engines
from apis.prompting import PromptBook
from dpsda.arg_utils import parse
from dpsda.augpe import ballot as ballots
from dpsda.augpe.ballot import Ballot
from dpsda.augpe.planning import mechanism, releases
from dpsda.augpe.population import Population, initial
from dpsda.augpe.selection import select
from dpsda.augpe.voting import vote
from dpsda.commands import COMMANDS
from dpsda.data import DatasetSpec, load
from dpsda.embedding import Encoder
from dpsda.evaluation.metrics import Measured, Yardstick
from dpsda.privacy import accounting
from dpsda.privacy.accounting import default_delta
from dpsda.shares import allocate

SETTINGS = [("none", 0.0), *((name, a) for name in ("csls", "global") for a in (0.2, 0.4, 0.5, 0.6, 0.7, 0.8))]
SETTINGS += [("centred", a) for a in (0.3, 0.6, 0.8, 1.0)]
SHOWN = ("mauve", "fid", "precision", "recall", "coverage", "nn_real")


def pool(path: Path, config: str, texts: int, seed: int):
    """The data set's spec, its fresh texts, and the options of the run."""
    data, _, evolution, _, model, remote, embeds, *_ = parse(["--config", config], "", "", *COMMANDS["augpe"].groups)
    spec = DatasetSpec.read(data.dataset)
    private = load(spec, data.split)
    if not path.exists():
        book = PromptBook.read(spec.folder / "prompts.yaml", max_tokens=model.length)
        rng = np.random.default_rng(seed)
        sizes = allocate(np.bincount(private.cells, minlength=len(spec.cells)), texts)
        cells = np.repeat(np.arange(len(sizes)), sizes)
        labels = [dict(zip(spec.label_columns, cell, strict=True)) for cell in spec.cells]
        api = engines.engine(model, remote, path.parent)
        made = initial(api, lambda cell, row: book.initial(labels[cell], rng), book.text_of, cells, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.texts.frame(spec).to_csv(path, index=False)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return spec, private, Population.from_frame(frame, spec), evolution, embeds


def central(counts: np.ndarray, rows: np.ndarray, cells: np.ndarray) -> float:
    """How much votes go to what is near the candidates' mean: Spearman's correlation, the mean over the labels."""
    found = []
    for cell in np.unique(cells):
        own = rows[cells == cell].astype(np.float64)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        found.append(spearmanr(counts[cells == cell], own @ own.mean(axis=0)).statistic)
    return float(np.mean(found))


def unequal(counts: np.ndarray) -> dict[str, float]:
    counts, candidates = np.sort(counts), len(counts)
    top = max(1, candidates // 100)
    gini = (2 * np.arange(1, candidates + 1) - candidates - 1) @ counts / (candidates * counts.sum())
    return {
        "gini": gini,
        "largest": counts[-1],
        "top_1%": counts[-top:].sum() / counts.sum(),
        "no_vote": (counts == 0).mean(),
        "skewness": skew(counts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--pool", type=Path, help="texts of a run, in the place of fresh ones")
    parser.add_argument("--kept", type=int, help="default: half of --texts")
    parser.add_argument("--neighbours", type=int, default=ballots.NEIGHBOURS, help="of csls")
    parser.add_argument("--corrections", nargs="+", default=sorted({name for name, _ in SETTINGS}))
    parser.add_argument("--epsilons", type=float, nargs="+", default=[4.0])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/hubs"))
    args = parser.parse_args()
    if args.pool and not args.pool.is_file():
        parser.error(f"--pool {args.pool}: there is no such file")
    name = Path(args.config).parent.name
    ballots.NEIGHBOURS = args.neighbours
    path = args.pool or args.out / f"{name}-{args.texts}-{args.seed}.csv"
    spec, private, candidates, evolution, embeds = pool(path, args.config, args.texts, args.seed)
    encoder = Encoder(embeds.feature_extractor)
    records, rows = encoder.embed(private.texts, private=True), encoder.embed(candidates.texts, private=False)
    public = [text for split in sorted(spec.public) for text in load(spec, split).texts]
    against = Measured("real", public, encoder.embed(public, private=False), np.array([len(t.split()) for t in public]))
    kept = allocate(np.bincount(private.cells, minlength=len(spec.cells)), args.kept or args.texts // 2)
    size = min(int(kept.sum()), len(public) // 2)
    yardstick = Yardstick(against, size, candidates.texts)
    delta, found = default_delta(private.num_records), []

    def measure(texts: Population, vectors: np.ndarray, about: dict) -> None:
        lengths = np.array([len(text.split()) for text in texts.texts])
        row = yardstick.measure(Measured("kept", texts.texts, vectors, lengths)).values
        found.append({**about, **{key: row[key][0] for key in SHOWN if row[key]}})

    def thrown(seed: int) -> np.ndarray:
        return select(np.zeros(len(rows)), candidates.cells, kept, "random", 0, np.random.default_rng(seed))

    found.append({"correction": "real", **{key: yardstick.floor().values[key][0] for key in SHOWN}})
    for draw in range(args.draws):
        chosen = thrown(draw)
        measure(candidates.take(chosen), rows[chosen], {"correction": "random"})
    for correction, strength in (setting for setting in SETTINGS if setting[0] in args.corrections):
        ballot = Ballot.of(rows, candidates.cells, evolution.nn_mode, correction, strength)
        votes = vote(records, private.cells, ballot, 1)
        counts = np.bincount(votes[votes >= 0], minlength=len(rows))
        for epsilon in args.epsilons:
            names = releases(args.epochs, label_counts=bool(spec.labels), votes=True)
            sigma = accounting.calibrate(
                lambda noise, names=names: [mechanism(name, "record", noise, evolution).event for name in names],
                epsilon,
                delta,
            )
            for draw in range(args.draws):
                noisy = mechanism(names[-1], "record", sigma, evolution).release(votes, None, len(rows))
                chosen = select(noisy, candidates.cells, kept, "rank", 0, np.random.default_rng(draw))
                about = {"correction": correction, "strength": strength, "epsilon": epsilon, "sigma": sigma}
                about |= unequal(counts) | {"central": central(counts, rows, candidates.cells)}
                measure(candidates.take(chosen), rows[chosen], about)
    table = pd.DataFrame(found).groupby(["correction", "strength", "epsilon"], dropna=False, sort=False).mean()
    table = table.reset_index().assign(data=name, texts=len(candidates), seed=args.seed, neighbours=args.neighbours)
    args.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out / f"{name}-{len(candidates)}-{args.seed}-{args.neighbours}-votes.csv", index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
