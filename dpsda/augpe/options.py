"""What can be set about an Aug-PE run. Names are those of the paper's public code."""

from __future__ import annotations

from dataclasses import dataclass

from apis.api import VARIATIONS
from dpsda.arg_utils import Options, option
from dpsda.augpe.selection import RULES
from dpsda.errors import InputError

EXAMPLES = 2  # kept texts that a prompt by example shows
SHOWN_IN = 4  # about how many prompts by example show the same ones
FIT_ASKS = 3  # how often a text is asked for because it does not say what its row says
# corrections for hubs, with their strength (dpsda/augpe/ballot.py)
CORRECTIONS = {"csls": 0.5, "global": 0.5, "centred": 1.0, "none": 0.0}
DEFAULT = "csls"


@dataclass(frozen=True)
class AugPEOptions(Options):
    """Evolution."""

    epochs: int = option(5, "T, the number of iterations; each spends privacy", free=True, least=1)
    first_texts: str = option(
        "prompts",
        "prompts: what the model writes from nothing; samples: those of the generator that finetune.py trained in this "
        "folder, whose budget this goes on with; both: samples, and texts from prompts where these are too few",
        choices=("prompts", "samples", "both"),
    )
    num_seed_samples: int = option(500, "texts kept at every iteration, over all labels")
    num_samples_schedule: list[int] | None = option(
        None, "the population at 0, 1, ... T instead, of which one in L is kept; the last one is repeated"
    )
    L: int = option(5, "population = L times the kept texts", "combine_divide_L", least=1)
    init_L: int = option(1, "population at the start = init_L times the seeds", "init_combine_divide_L", least=1)
    lookahead_degree: int = option(0, "K: embed a candidate as the mean of K of its variations; 0 = itself", least=0)
    lookahead_self: bool = option(False, "with K > 0: the candidate itself counts in the mean")
    num_nearest_neighbor: int = option(1, "k: candidates that a private record votes for", least=1)
    nn_mode: str = option("L2", "distance of the votes", choices=("L2", "IP", "cos_sim"))
    hub_correction: str | None = option(
        None,
        "what takes hubs out of the votes, the candidates that are near to everything (docs/hubs.md); none: as "
        f"published; default: {DEFAULT}",
        choices=tuple(CORRECTIONS),
    )
    hub_strength: float | None = option(
        None,
        f"a; default: {', '.join(f'{strength:g} ({name})' for name, strength in CORRECTIONS.items() if strength)}",
        least=0,
    )
    count_threshold: float = option(0.0, "H: noisy counts not above it are 0")
    select_syn_mode: str = option(
        "rank",
        "; ".join(f"{name}: {rule.about}" for name, rule in RULES.items()),
        choices=tuple(RULES),
    )
    save_syn_mode: str = option(
        "selected",
        "what is released: the kept texts, all of the population made of them, or one variation of each",
        choices=("selected", "all", "one_var"),
    )
    donnot_keep_last_iter: bool = option(False, "population = L variations of the kept texts, without these")
    labels_from: str = option(
        "prompts",
        "prompts: a text has the label that it was asked for with; votes: it stands under every label, and what a "
        "classifier learns from the noisy votes decides (for few labels, and texts whose own say little)",
        choices=("prompts", "votes"),
    )
    marginals_noise: float = option(
        1.0, "with attributes: the noise multiplier of the marginals, in multiples of that of a vote", above=0
    )
    agreement: float = option(
        0.0,
        "with attributes: the share of the values of its row that a text has to say, of those that a text tells, or "
        f"another one is asked for, up to {FIT_ASKS} times",
        least=0,
        most=1,
    )
    variation_type: str = option("paraphrase", "how a kept text is varied", choices=VARIATIONS)
    in_context_share: float = option(
        0.0,
        f"share of the new candidates that are asked for by example, with {EXAMPLES} kept texts of their label as the "
        "model's earlier answers, and not as a variation of one",
        least=0,
        most=1,
    )
    variation_degree_schedule: list[float] = option(
        [0.5],
        "share of tokens that blank_fill blanks out at iteration 1, 2, ...; the last one is repeated",
        least=0,
        most=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hub_correction == "centred" and self.nn_mode == "IP":
            raise InputError("--hub_correction centred compares directions; it takes --nn_mode cos_sim or L2")
        if self.labels_by_votes and not self.takes_votes:
            raise InputError(f"--labels_from votes: --select_syn_mode {self.select_syn_mode} takes none")
        if min(self.sizes) < 1:
            raise InputError("--num_seed_samples has to be at least 1, and --num_samples_schedule L (first: init_L)")
        if not self.variation_degree_schedule:
            raise InputError("--variation_degree_schedule holds at least one share")

    @property
    def begins_with_samples(self) -> bool:
        """Whether samples of a generator that was trained in the run's folder are among the first texts."""
        return self.first_texts != "prompts"

    @property
    def takes_votes(self) -> bool:
        """Whether the private records vote at all."""
        return RULES[self.select_syn_mode].takes_votes

    @property
    def labels_by_votes(self) -> bool:
        """Whether a text stands under every label until the votes tell its own."""
        return self.labels_from == "votes"

    def keeps(self, t: int) -> bool:
        """Whether the texts kept at `t` - 1 are in the population of `t`, beside their variations. With L = 1 there is
        room for one variation of each and no more."""
        return t == 1 or (self.L > 1 and not self.donnot_keep_last_iter)

    def times(self, t: int) -> int:
        """How many new texts iteration `t` >= 1 asks for, for each that was kept."""
        return (self.init_L if t == 1 else self.L) - self.keeps(t)

    def asks(self, t: int) -> int:
        """How many answers iteration `t` asks a model for, if none of them is lost: at 0 the first texts, after T what
        is released of variations."""
        if t == 0:
            return 0 if self.first_texts == "samples" else self.sizes[0]
        if t > self.epochs:
            return 0 if self.save_syn_mode == "selected" else self.sizes[-1] * self.times(t)
        ahead = self.lookahead_degree * (self.times(t) + self.keeps(t)) if self.takes_votes else 0
        return self.sizes[t - 1] * (self.times(t) + ahead)

    @property
    def sizes(self) -> list[int]:
        """How many texts are kept at 0, 1, ... T."""
        given = self.num_samples_schedule
        if given is None:
            return [self.num_seed_samples] * (self.epochs + 1)
        populations = [given[min(t, len(given) - 1)] for t in range(self.epochs + 1)]
        return [size // (self.L if t else self.init_L) for t, size in enumerate(populations)]

    def degree(self, t: int) -> float:
        """The variation degree of iteration `t` >= 1."""
        return self.variation_degree_schedule[min(t, len(self.variation_degree_schedule)) - 1]
