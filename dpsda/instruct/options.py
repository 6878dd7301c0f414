"""What can be set about resampling."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from dpsda.arg_utils import Options, option

KEPT = 0.31  # what the paper kept: 310,000 of 1,000,000 texts (Yu et al. 2024)


@dataclass(frozen=True)
class ResampleOptions(Options):
    """Resampling."""

    result_folder: str = option(
        MISSING, "the run whose texts are resampled and whose ledger goes on, or a new folder", free=True
    )
    synthetic_file: str | None = option(
        None, "resample this csv or parquet file, or folder of parquet files; default: what the run made", free=True
    )
    synthetic_public: bool = option(
        False, "that file is not of this run, and nothing private went into it: its texts are public"
    )
    num_clusters: int | None = option(
        None,
        "K, clusters of the synthetic texts; default: a tenth of the texts, at most 1000 (the paper's)",
        least=2,
    )
    pca_variance: float = option(
        0.9,
        "clusters are found on the principal components that keep this share of the variance; 1 = all of them",
        above=0,
        most=1,
    )
    num_samples: int | None = option(
        None,
        f"texts that are kept; default: {KEPT:.0%} of them, as in the paper",
        free=True,
        least=1,
    )
    ratio_cap: float | None = option(
        None,
        "no cluster is kept more than this many times as often as at random; default: no cap",
        free=True,
        least=1,
    )
    draws: int = option(
        1,
        "draws with seeds SEED, SEED + 1, ...; the first is released, the others lie in resample/",
        free=True,
        least=1,
    )
    seed: int = option(
        0, "steers the clusters and which texts are drawn; privacy noise never has a seed", free=True, least=0
    )
    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one", free=True)
    log_private: bool = option(False, "show figures on private data, which nothing protects", free=True)
    dry_run: bool = option(False, "say what would be done, and do nothing", free=True)
