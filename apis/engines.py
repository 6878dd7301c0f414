"""Options -> what writes text: the one place that knows which engines there are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda.errors import InputError

if TYPE_CHECKING:
    from apis.api import TextAPI
    from apis.hf_api import HFAPI
    from dpsda.options import ModelOptions, RemoteOptions

OWN = "own"
SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty", "do_sample")
HARDWARE = ("device", "dtype", "batch_size")


@dataclass(frozen=True)
class Engine:
    """`make` is called as `engine` is. Prompts go to somebody else where it `sends` them, and `model_type` is a model
    that can be loaded, for its tokenizer or its likelihoods, where it `loads` one."""

    about: str
    sends: bool
    loads: bool
    make: Callable[..., TextAPI]


def engine(
    model: ModelOptions,
    remote: RemoteOptions,
    folder: Path,
    *,
    name: str | None = None,
    greedy: bool = False,
    progress: bool = True,
) -> TextAPI:
    """The engine of these options, loaded; it may keep a log of its requests, and its budget, in `folder`.

    `name` is another model, `greedy` takes the likeliest answers of one that is served, and without `progress` nothing
    is shown of how many texts there are. Raises InputError where a key, a price or a model is missing.
    """
    return ENGINES[model.api].make(model, remote, folder, name=name, greedy=greedy, progress=progress)


def local(model: ModelOptions, *, name: str | None = None, progress: bool = True) -> Callable[[], HFAPI]:
    """What loads the model of these options, here or in another process."""
    settings = {key: getattr(model, key) for key in (*SAMPLING, *HARDWARE)}
    return loads(name or model.model_type, progress=progress, **settings)


def loads(model: str, **settings: Any) -> Callable[[], HFAPI]:
    """What loads a model of these `settings` (see HFAPI), here or in another process."""
    from apis.hf_api import HFAPI

    return functools.partial(HFAPI, model, **settings)


def check_decodable(model: str) -> None:
    """InputError for a local model that could not be sampled, before anything is spent on it."""
    from apis.hf_api import check_decodable

    check_decodable(model)


def _in_process(
    model: ModelOptions, remote: RemoteOptions, folder: Path, *, name: str | None, greedy: bool, progress: bool
) -> TextAPI:
    return local(model, name=name, progress=progress)()


def _served(
    model: ModelOptions, remote: RemoteOptions, folder: Path, *, name: str | None, greedy: bool, progress: bool
) -> TextAPI:
    from apis.azure_api import AzureAPI
    from apis.batch_api import BatchAPI
    from apis.endpoints import endpoints

    name = name or model.model_type
    return (BatchAPI if remote.api_batch else AzureAPI)(
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


def _given(model: ModelOptions, *_: Any, **__: Any) -> TextAPI:
    raise InputError(f"--api {OWN}: the engine of this run is an object; go on with dpsda.run(..., api=ENGINE)")


ENGINES = {
    "HFGPT": Engine("a Hugging Face model in this process", sends=False, loads=True, make=_in_process),
    "AzureGPT": Engine("Azure OpenAI, OpenAI or a server like it", sends=True, loads=False, make=_served),
    OWN: Engine("one that dpsda.run is given in Python", sends=True, loads=False, make=_given),
}
