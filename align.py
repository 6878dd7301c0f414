"""What released instructions are for: answers, fine-tuning, win rates, reinforcement learning. docs/instructions.md

    python align.py pairs   --dataset chat --split test --result_folder RUN --name held_out
    python align.py answers --config data/chat/align/answers.yaml --instructions RUN/release/synthetic.csv \\
                            --result_folder RUN --name released
    python align.py sft     --config data/chat/align/sft.yaml --pairs RUN/alignment/released/answers.csv \\
                            --result_folder RUN --name sft_resampled
    python align.py judge   --config data/chat/align/judge.yaml --answers RUN/alignment/resampled/answers.csv \\
                            --against RUN/alignment/unfiltered/answers.csv --result_folder RUN --name win_rate
    python align.py reward  --config data/chat/align/reward.yaml --verdicts RUN/alignment/preferred/verdicts.csv \\
                            --result_folder RUN --name reward
    python align.py rlhf    --config data/chat/align/rlhf.yaml --instructions RUN/release/synthetic.csv \\
                            --reward RUN/alignment/reward/adapter --result_folder RUN --name policy

`python align.py STEP --help` has the options of a step. A step that is complete is not done again, and one that was
stopped goes on with the same command. What no run with noise vouches for is taken as private: it is not sent to an API,
and what comes of it lies in RUN/private.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dpsda.alignment import options as kinds
from dpsda.arg_utils import parse_step, run
from dpsda.errors import InputError
from dpsda.options import ModelOptions, RemoteOptions

if TYPE_CHECKING:
    from apis.api import TextAPI

STEPS = {
    "pairs": (kinds.PairsOptions, kinds.StepOptions),
    "answers": (kinds.AnswersOptions, ModelOptions, RemoteOptions, kinds.StepOptions),
    "sft": (kinds.SFTOptions, kinds.TrainingOptions, kinds.StepOptions),
    "judge": (kinds.JudgeOptions, ModelOptions, RemoteOptions, kinds.StepOptions),
    "reward": (kinds.RewardOptions, kinds.TrainingOptions, kinds.StepOptions),
    "rlhf": (kinds.PolicyOptions, kinds.TrainingOptions, kinds.StepOptions),
}


def main() -> None:
    name, options = parse_step("python align.py", __doc__ or "", STEPS)
    _check_libraries()
    from apis.gguf import unpacked
    from dpsda.alignment import steps

    if name not in ("answers", "judge"):
        getattr(steps, name)(*options, unpacked)
        return
    own, model, remote, step = options
    engine = partial(_remote, name, model, remote) if model.api == "AzureGPT" else partial(_local, model)
    getattr(steps, name)(own, model, step, engine, unpacked)


def _local(model: ModelOptions, name: str, folder: Path, progress: bool) -> TextAPI:
    from apis.hf_api import HFAPI
    from apis.journal import Journal

    sampling = {
        key: getattr(model, key)
        for key in ("device", "dtype", "temperature", "top_k", "top_p", "repetition_penalty", "do_sample", "batch_size")
    }
    return Journal(HFAPI(name, progress=progress, **sampling), folder / "journal")


def _remote(step: str, model: ModelOptions, remote: RemoteOptions, name: str, folder: Path, progress: bool) -> TextAPI:
    from apis.azure_api import AzureAPI
    from apis.endpoints import endpoints
    from apis.journal import Journal

    api = AzureAPI(
        name,
        endpoints=endpoints(name, remote.api_base, remote.model_config and Path(remote.model_config)),
        temperature=0.0 if step == "judge" else model.temperature,
        top_p=1.0 if step == "judge" else model.top_p,
        num_procs=remote.num_procs,
        timeout=remote.timeout,
        max_requests=remote.max_requests,
        max_cost=remote.max_cost,
        prices=remote.prices and Path(remote.prices),
        log=folder / "requests.jsonl",
        progress=progress,
    )
    return Journal(api, folder / "journal")


def _check_libraries() -> None:
    from importlib.util import find_spec

    if find_spec("trl") is None or find_spec("peft") is None:
        raise InputError("the steps need trl and peft: install them with pip install -e '.[alignment]'")


if __name__ == "__main__":
    run(main)
