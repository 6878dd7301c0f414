"""Options -> what writes text: the one place that knows which engines there are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apis.api import TextAPI
    from apis.hf_api import HFAPI
    from dpsda.options import ModelOptions, RemoteOptions

ENGINES = {
    "HFGPT": "a Hugging Face model in this process",
    "AzureGPT": "Azure OpenAI, OpenAI or a server like it",
}
SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty", "do_sample")
HARDWARE = ("device", "dtype", "batch_size")


def is_served(model: ModelOptions) -> bool:
    """Whether a server answers, and not a model in this process."""
    return model.api == "AzureGPT"


def engine(
    model: ModelOptions,
    remote: RemoteOptions,
    folder: Path,
    *,
    name: str | None = None,
    greedy: bool = False,
    progress: bool = True,
) -> TextAPI:
    """The engine of these options, loaded; a served one keeps a log of its requests, and its budget, in `folder`.

    `name` is another model, `greedy` takes a served one's likeliest answers, and without `progress` nothing is shown of
    how many texts there are. Raises InputError where a key, a price or a model is missing.
    """
    if not is_served(model):
        return local(model, name=name, progress=progress)()
    from apis.azure_api import AzureAPI
    from apis.endpoints import endpoints

    name = name or model.model_type
    return AzureAPI(
        name,
        endpoints=endpoints(name, remote.api_base, Path(remote.model_config) if remote.model_config else None),
        temperature=0.0 if greedy else model.temperature,
        top_p=1.0 if greedy else model.top_p,
        num_procs=remote.num_procs,
        timeout=remote.timeout,
        max_requests=remote.max_requests,
        max_cost=remote.max_cost,
        prices=Path(remote.prices) if remote.prices else None,
        log=folder / "requests.jsonl",
        progress=progress,
    )


def local(model: ModelOptions, *, name: str | None = None, progress: bool = True) -> Callable[[], HFAPI]:
    """What loads the model, here or in another process."""
    return loads(
        name or model.model_type, progress=progress, **{key: getattr(model, key) for key in (*SAMPLING, *HARDWARE)}
    )


def loads(model: str, **settings: Any) -> Callable[[], HFAPI]:
    """What loads a model of these `settings` (see HFAPI), here or in another process."""
    from apis.hf_api import HFAPI

    return functools.partial(HFAPI, model, **settings)


def check_decodable(model: str) -> None:
    """InputError for a local model that could not be sampled, before anything is spent on it."""
    from apis.hf_api import check_decodable

    check_decodable(model)
