"""What can be set about an audit."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from dpsda.arg_utils import Options, option


@dataclass(frozen=True)
class PlantOptions(Options):
    """Canaries."""

    output: str = option(MISSING, "a folder for what is made; it goes to its private/, and nothing of it may be shared")
    canaries: int = option(
        1000,
        "about how many records (or users) are replaced by made-up ones, each in by a coin; n show at most ln(n / 6)",
        least=40,  # so that there are some in and some out, but for one in 10^8
    )
    repeats: int = option(1, "records of a canary; 2 or more for --privacy_unit user: they are one user's", least=1)


@dataclass(frozen=True)
class MechanismOptions(Options):
    """Attack."""

    result_folder: str = option(MISSING, "the folder of the run")
    failure: float = option(1e-3, "the probability that the attack on a sound mechanism refutes it", above=0, below=1)


@dataclass(frozen=True)
class ScoreOptions(Options):
    """Scores."""

    result_folder: str = option(MISSING, "the folder of the run")
    planted: str = option(MISSING, "the --output of the canaries that the run was made on")
    failure: float = option(0.05, "the probability that the guesses from a sound run refute it", above=0, below=1)
    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one")
    log_private: bool = option(False, "show what was found, which nothing protects")
    certify: bool = option(
        False,
        "add what was found to the run's certificate and card, which are shared: on your word, nothing protects it",
    )


@dataclass(frozen=True)
class MembershipOptions(Options):
    """Membership."""

    result_folder: str = option(MISSING, "the folder of the run")
    reference_split: str = option("test", "records that were not in the data, and are like those that were")
    texts: int = option(1000, "records of a side, at most", least=2)
    seed: int = option(0, "steers which records are drawn", least=0)
    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one")
    log_private: bool = option(False, "show what was found, which nothing protects")
