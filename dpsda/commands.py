"""All commands in one table: which options each has, and what it calls. Nothing heavy is imported to show them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from dpsda.alignment import options as alignment
from dpsda.arg_utils import parse, parse_step, run
from dpsda.attributes.options import RowOptions
from dpsda.audit import options as audit
from dpsda.augpe.options import AugPEOptions
from dpsda.errors import InputError, did_you_mean
from dpsda.evaluation.options import DownstreamOptions, MetricOptions, SubjectOptions
from dpsda.finetune.options import SamplingOptions, TrainingOptions, TuningOptions
from dpsda.instruct.options import ResampleOptions
from dpsda.options import (
    ComparedDataOptions,
    DataOptions,
    DeviceOptions,
    EmbeddingOptions,
    EngineOptions,
    ModelOptions,
    NewDataOptions,
    PrivacyOptions,
    RemoteOptions,
    RunOptions,
    TrackedRunOptions,
    TrialOptions,
)
from dpsda.pmixed import options as pmixed

REFUTED = 3  # an exit code that no failure has: an audit found more than was claimed


@dataclass(frozen=True)
class Command:
    """A command whose options are dataclasses; with steps, `groups` has those of each, and `function` is its name."""

    about: str
    module: str
    function: str = "run"
    groups: tuple[type, ...] = ()
    steps: dict[str, tuple[type, ...]] | None = None
    first: str = ""  # the option whose value may be the first word

    def __call__(self, prog: str, description: str) -> Any:
        """Parse the command line and call what it names."""
        if self.steps is None:
            words = sys.argv[1:]
            if self.first and words and not words[0].startswith("-"):
                words[:0] = [f"--{self.first}"]
            name, options = self.function, parse(words, prog, description, *self.groups)
        else:
            name, options = parse_step(prog, description, self.steps)
        return self.route(name)(*options)

    def route(self, name: str = "") -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), name or self.function)
        return function

    def main(self, prog: str, description: str | None) -> NoReturn:
        """The same as a whole process: what is wrong is one line and an exit code (`arg_utils.run`)."""

        def called() -> None:
            if self(prog, description or self._description(prog)) is True:
                sys.exit(REFUTED)

        run(called)

    def _description(self, prog: str) -> str:
        if self.steps is None:
            return self.about
        return f"{self.about}\n\n`{prog} STEP --help` has the options of a step: {', '.join(self.steps)}"


COMMANDS = {
    "new": Command(
        "a new data set: its spec.yaml and prompts.yaml, from what you say of it",
        "dpsda.routes.new",
        groups=(NewDataOptions,),
        first="name",
    ),
    "prompts": Command(
        "a trial of a data set's prompts on a model, without any private record",
        "dpsda.routes.prompts",
        groups=(TrialOptions, ModelOptions, RemoteOptions, EmbeddingOptions),
        first="dataset",
    ),
    "augpe": Command(
        "texts of a language model, evolved towards private ones by noisy votes (Aug-PE)",
        "dpsda.routes.augpe",
        groups=(
            *(ComparedDataOptions, PrivacyOptions, AugPEOptions, RowOptions, ModelOptions, RemoteOptions),
            *(EmbeddingOptions, EngineOptions, TrackedRunOptions),
        ),
    ),
    "finetune": Command(
        "a generator or classifier fine-tuned by DP-SGD or DP-Adam, and texts from it",
        "dpsda.routes.finetune",
        groups=(
            *(DataOptions, PrivacyOptions, TuningOptions, TrainingOptions, SamplingOptions, RowOptions),
            *(EmbeddingOptions, EngineOptions, RunOptions),
        ),
    ),
    "resample": Command(
        "the texts of any run, resampled towards the private ones by one noisy histogram",
        "dpsda.routes.resample",
        groups=(ComparedDataOptions, PrivacyOptions, ResampleOptions, EmbeddingOptions),
    ),
    "predict": Command(
        "private next-token prediction by an ensemble (PMixED): train, evaluate, generate",
        "dpsda.routes.predict",
        steps={
            "train": (DataOptions, pmixed.EnsembleOptions, pmixed.HardwareOptions, pmixed.FolderOptions),
            "evaluate": (pmixed.PerplexityOptions, pmixed.HardwareOptions, pmixed.FolderOptions),
            "generate": (
                *(PrivacyOptions, pmixed.MechanismOptions, pmixed.AnswerOptions),
                *(pmixed.HardwareOptions, pmixed.FolderOptions),
            ),
        },
    ),
    "align": Command(
        "what released instructions are for: pairs, answers, sft, judge, reward, rlhf",
        "dpsda.routes.align",
        steps={
            "pairs": (alignment.PairsOptions, alignment.StepOptions),
            "answers": (alignment.AnswersOptions, ModelOptions, RemoteOptions, alignment.StepOptions),
            "sft": (alignment.SFTOptions, alignment.TrainingOptions, alignment.StepOptions),
            "judge": (alignment.JudgeOptions, ModelOptions, RemoteOptions, alignment.StepOptions),
            "reward": (alignment.RewardOptions, alignment.TrainingOptions, alignment.StepOptions),
            "rlhf": (alignment.PolicyOptions, alignment.TrainingOptions, alignment.StepOptions),
        },
    ),
    "audit": Command(
        "attacks on what a run released: mechanism, plant, score, membership",
        "dpsda.routes.audit",
        steps={
            "mechanism": (audit.MechanismOptions,),
            "plant": (DataOptions, audit.PlantOptions),
            "score": (audit.ScoreOptions,),
            "membership": (audit.MembershipOptions,),
        },
    ),
    "metric": Command(
        "how far synthetic texts are from real ones: FID, MAUVE, precision, recall, ...",
        "dpsda.evaluation.distances",
        "measure",
        groups=(SubjectOptions, MetricOptions),
    ),
    "downstream": Command(
        "what a model learns from synthetic texts, tested on real ones",
        "dpsda.evaluation.downstream",
        "evaluate",
        groups=(SubjectOptions, DownstreamOptions),
    ),
    "precompute": Command(
        "the vectors of a private split, embedded once for all runs",
        "dpsda.precompute",
        "embed",
        groups=(DataOptions, EmbeddingOptions, EngineOptions, DeviceOptions),
    ),
}

# commands with arguments of their own: what they are, where their `main` is, and the words before the user's
OTHERS = {
    "report": ("the pages of finished runs", "dpsda.report.__main__", ()),
    "compare": ("runs beside each other, with quality against epsilon", "dpsda.report.compare", ()),
    "status": ("how far a run is, from another terminal, too", "dpsda.status", ()),
    "perplexity": ("a page of PMixED's perplexities", "dpsda.report.perplexity", ()),
    "verify": ("check a run's certificate and its signature", "dpsda.privacy.__main__", ("verify",)),
    "sign": ("sign a run's certificate with an SSH key", "dpsda.privacy.__main__", ("sign",)),
    "push": ("a release into a folder, or to the Hugging Face hub", "dpsda.push", ()),
    "show": ("what a run has spent", "dpsda.privacy.__main__", ("show",)),
    "total": ("the epsilon of several runs on the same data", "dpsda.privacy.__main__", ("total",)),
    "calibrate": ("the noise multiplier for an epsilon", "dpsda.privacy.__main__", ("calibrate",)),
    "epsilon": ("the epsilon of a noise multiplier", "dpsda.privacy.__main__", ("epsilon",)),
    "download": ("the published data sets, checked", "dpsda.data.download", ()),
    "lmsys": ("the instructions of LMSYS-Chat-1M, filtered", "dpsda.data.lmsys", ()),
    "language_modelling": (
        "WikiText-103 and One Billion Word as PMixED cuts them",
        "dpsda.data.language_modelling",
        (),
    ),
    "assets": ("models and data that come from a package index", "dpsda.assets", ()),
    "gguf": ("the dense copy of a GGUF model", "dpsda.gguf", ()),
}


def main() -> None:
    """`dpsda COMMAND ...`: the commands of this table, of which the scripts in a checkout's root are some."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("Differentially private synthetic text.\n")
        abouts = {key: command.about for key, command in COMMANDS.items()} | {key: it[0] for key, it in OTHERS.items()}
        for command, about in abouts.items():
            print(f"    dpsda {command:<19} {about}")
        print("\n`dpsda COMMAND --help` has the options of a command.")
        return
    sys.argv[:2] = [f"dpsda {name}"]
    if name in COMMANDS:
        COMMANDS[name].main(f"dpsda {name}", None)

    def called() -> None:
        if name not in OTHERS:
            there = [*COMMANDS, *OTHERS]
            raise InputError(f"no command {name!r}{did_you_mean(name, there)}; there are: {', '.join(there)}")
        _, module, words = OTHERS[name]
        sys.argv[1:1] = words
        sys.exit(importlib.import_module(module).main() or 0)

    run(called)
