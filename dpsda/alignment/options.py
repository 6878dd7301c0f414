"""What can be set about the steps of `align.py`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from dpsda.arg_utils import Options, another_default, option
from dpsda.errors import InputError
from dpsda.tuning.options import LoraOptions


@dataclass(frozen=True)
class StepOptions(Options):
    """Step."""

    result_folder: str = option(
        MISSING, "the folder of a run; a step writes into its alignment/, or private/alignment/ where nothing protects"
    )
    name: str = option(MISSING, "what the result is called there")
    seed: int = option(0, "steers sampling, the order of texts and new weights", least=0)
    log_private: bool = option(False, "show figures that are computed from private data, which nothing protects")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name or self.name.startswith(".") or "/" in self.name or "\\" in self.name:
            raise InputError(f"--name has to be the plain name of a file or folder, not {self.name!r}")


@dataclass(frozen=True)
class PairsOptions(Options):
    """Real pairs."""

    dataset: str = option(MISSING, "a folder of data/ by name, or the path of one")
    split: str = option("train", "of which split; one that spec.yaml declares public may be shared")
    answer_column: str = option("answer", "the column of the answers")
    chat_model: str | None = option(
        None, "the model whose chat template makes one text of each pair, for DP-SGD on real pairs by finetune.py"
    )


@dataclass(frozen=True)
class AnswersOptions(Options):
    """Answers."""

    instructions: str = option(
        MISSING, "a csv or parquet file with a column `text` or `instruction`, or a folder of such parquet files"
    )
    adapter: str | None = option(None, "the folder of an adapter on top of --model_type (HFGPT)")
    num_instructions: int | None = option(None, "answer so many of them, drawn by --seed; default: all", least=1)
    system: str = option("", "a standing instruction for the model")
    send_private: bool = option(
        False, "the owner of the data allows that private texts, which nothing protects, are sent to the API"
    )


@dataclass(frozen=True)
class JudgeOptions(Options):
    """Judge. --model_type judges: by what it writes (AzureGPT), or by the likelihood of its verdict (HFGPT)."""

    answers: str = option(MISSING, "answers of one model: a csv with the columns instruction and answer")
    against: str = option(MISSING, "those of another; instructions that both answered are judged")
    num_instructions: int | None = option(None, "judge so many of them, drawn by --seed; default: all", least=1)
    send_private: bool = option(
        False, "the owner of the data allows that private texts, which nothing protects, are sent to the API"
    )


@dataclass(frozen=True)
class TrainingOptions(LoraOptions):
    """Training."""

    epochs: float = option(3.0, "passes over the examples", above=0)
    max_steps: int | None = option(None, "stop after so many steps instead", least=1)
    batch_size: int = option(32, "examples of a step", least=1)
    micro_batch_size: int | None = option(None, "examples of one forward pass; default: all of a step", least=1)
    learning_rate: float = option(3e-4, "of AdamW; it falls along a cosine", above=0)
    max_length: int = option(1024, "tokens of an example; what is beyond is cut off, or the example left out", least=1)
    lora_targets: list[str] | None = another_default(
        LoraOptions, "lora_targets", ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    save_steps: int = option(50, "steps between two checkpoints, which a killed step goes on from", least=1)
    device: str = option("auto", "cpu, cuda, ...; auto takes the GPU if there is one")
    dtype: str = option("auto", "number format of the frozen weights", choices=("auto", "bfloat16", "float32"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % (self.micro_batch_size or self.batch_size):
            raise InputError("--batch_size has to be a multiple of --micro_batch_size")


@dataclass(frozen=True)
class SFTOptions(Options):
    """Supervised fine-tuning."""

    pairs: str = option(MISSING, "a csv or parquet file with the columns instruction (or text) and answer")
    num_pairs: int | None = option(None, "train on so many of them, drawn by --seed; default: all", least=1)


@dataclass(frozen=True)
class RewardOptions(Options):
    """Reward model."""

    verdicts: str = option(MISSING, "the verdicts.csv of a `judge` step: the winner is chosen, the loser rejected")


@dataclass(frozen=True)
class PolicyOptions(Options):
    """Policy gradient."""

    instructions: str = option(MISSING, "a csv or parquet file with a column `text` or `instruction`")
    reward: str = option(MISSING, "the adapter of a `reward` step")
    reward_model: str | None = option(None, "the model under that adapter; default: the one that it names")
    adapter: str | None = option(None, "the adapter of an `sft` step to start from; default: a new one")
    generations: int = option(4, "answers to each instruction, each measured against the mean of the others", least=2)
    length: int = option(64, "new tokens of an answer, at most", least=1)
    temperature: float = option(1.0, "sampling temperature", above=0)
    beta: float = option(0.05, "weight of the divergence from where the policy started", least=0)
