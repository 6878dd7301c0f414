"""Models behind a server: Azure OpenAI, OpenAI, or whatever speaks OpenAI's protocol, such as vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import yaml
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tqdm import tqdm

from apis.api import OnAnswer, Prompt, TextAPI
from apis.journal import whole_lines
from dpsda.errors import InputError, did_you_mean, not_yaml

PRICES = Path(__file__).with_name("prices.yaml")
REPOSITORY = Path(__file__).resolve().parents[1]
OPENAI_URL = "https://api.openai.com/v1"
AZURE_VERSION = "2024-10-21"  # the last stable version of Azure's dated ones
ENTRY = ("openai_api_key", "key_env", "openai_api_base", "engine", "api_version")
TRIES = 10  # of one prompt
BACKOFF = wait_random_exponential(multiplier=0.5, max=60)
PAUSE = 1.0  # seconds for which an endpoint that failed without a Retry-After is not the first choice
LONGEST_WAIT = 3600.0  # whatever Retry-After says
AGAIN = {408, 409, 429}  # and 5xx
TOO_LONG = {"context_length_exceeded", "string_above_max_length"}
SHUT = {401, 403, 404}  # another request to this endpoint would end in the same way
FILTERED = {"content_filter", "content_policy_violation", "invalid_prompt", "ResponsibleAIPolicyViolation"}

for _name in ("openai", "httpx2", "httpcore2"):  # they would quote URLs and what servers say
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Endpoint:
    """A server and the key to it, empty where it needs none; `deployment` and `api_version` are Azure's."""

    url: str
    key: str = field(repr=False)
    deployment: str | None = None
    api_version: str | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise InputError("an API base has to look like https://host/v1")
        if "@" in parts.netloc or parts.query or parts.fragment:  # not quoted: it may hold a key
            raise InputError(
                f"the API base of {self.host} has a user, a password or a query in it, which would be saved with the "
                "run; give the bare address, and the key in an environment variable"
            )
        if not (self.key.isascii() and self.key.isprintable()) or " " in self.key:
            raise InputError(f"the key for {self.host} has a space, a line break or an odd letter in it: copy it again")

    @property
    def closed(self) -> bool:
        """Whether nobody on the way can read what is sent there."""
        return self.url.startswith("https://") or urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]


def endpoints(model: str, api_base: str | None = None, model_config: Path | None = None) -> list[Endpoint]:
    """Who answers for `model`: by `model_config` or the file in $MODEL_CONFIG, else by `api_base` and environment."""
    if api_base and model_config:
        raise InputError("give an API base or a model config, not both: the file has the base of each endpoint")
    file = model_config or (None if api_base else os.environ.get("MODEL_CONFIG"))
    if file:
        try:
            return _from_file(model, Path(file).expanduser())
        except RuntimeError as error:
            raise InputError(f"{file}: {error}") from None
    azure_key, azure_url, key, url = (
        os.environ.get(name, "").strip()
        for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_KEY", "OPENAI_BASE_URL")
    )
    if azure_key and azure_url and not api_base:
        deployment = os.environ.get("AZURE_OPENAI_DEPLOYMENT") or model
        return [Endpoint(azure_url, azure_key, deployment, os.environ.get("OPENAI_API_VERSION") or AZURE_VERSION)]
    url = api_base or url
    if not key and not url:
        raise InputError(
            "no key: set OPENAI_API_KEY, or AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT, or MODEL_CONFIG to "
            "a file with keys; for a server that needs none, give its API base"
        )
    end = Endpoint(url or OPENAI_URL, key)
    # a key of OpenAI's is not for everybody on the way; one for this server goes into a model config
    return [end if end.closed else replace(end, key="")]


def _from_file(model: str, path: Path) -> list[Endpoint]:
    if path.resolve().is_relative_to(REPOSITORY):
        raise InputError(f"{path} lies in the repository, where its keys may be published by accident: move it out")
    try:
        models = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)  # a key or a version is never a number
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise not_yaml(path, error) from None
    if not isinstance(models, dict) or model not in models:
        names = models if isinstance(models, dict) else ()
        raise InputError(f"{path} has no entry {model!r}{did_you_mean(model, names)}")
    entries = models[model] if isinstance(models[model], list) else [models[model]]
    found = [_from_entry(entry, f"{path}, {model}, entry {number}") for number, entry in enumerate(entries, start=1)]
    if not found:
        raise InputError(f"{path}: {model} has no entry")
    return found


def _from_entry(entry: Any, where: str) -> Endpoint:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise InputError(f"{where} has to be a mapping of {', '.join(ENTRY)} to text")
    for name in entry:
        if name not in ENTRY:
            raise InputError(f"{where}: unknown key {name!r}{did_you_mean(name, ENTRY)}")
    url, deployment, variable = (entry.get(name, "").strip() for name in ("openai_api_base", "engine", "key_env"))
    key = (os.environ.get(variable, "") if variable else entry.get("openai_api_key", "")).strip()
    if variable and "openai_api_key" in entry:
        raise InputError(f"{where}: give openai_api_key or key_env, not both")
    if variable and not key:
        raise InputError(f"{where}: the environment variable {variable} is not set")
    if not key and (deployment or not url):
        raise InputError(f"{where}: no key; give openai_api_key, or key_env with the name of a variable that holds it")
    if bool(deployment) < ("api_version" in entry) or (deployment and not url):
        raise InputError(f"{where}: Azure needs engine (the deployment), openai_api_base, and perhaps api_version")
    if deployment:
        return Endpoint(url, key, deployment, entry.get("api_version") or AZURE_VERSION)
    return Endpoint(url or OPENAI_URL, key)


class _Again(Exception):
    """This try failed and another may not; `wait` is the least number of seconds before it."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


class _Stop(Exception):
    """Nothing more can be asked."""


class _Spent(_Stop):
    """Nothing more may be asked: the text names the budget."""


@dataclass
class _Server:
    """What has been learned about an endpoint."""

    number: int
    endpoint: Endpoint
    client: openai.AsyncOpenAI | None = None
    in_flight: int = 0
    sent: int = 0
    told: set[str] = field(default_factory=set)  # the failures that the user has heard of
    shut: int | None = None  # the status that took it out of use
    paused: float = 0.0  # until when others are asked first, by time.monotonic()
    length: str = "max_tokens"  # its name for the longest answer

    @property
    def name(self) -> str:
        return f"endpoint {self.number} ({self.endpoint.host})"

    def pause(self, seconds: float = 0.0) -> None:
        self.paused = max(self.paused, time.monotonic() + (seconds or PAUSE))

    def connect(self, http: httpx2.AsyncClient, timeout: float) -> None:
        end = self.endpoint
        patience = httpx2.Timeout(timeout, connect=timeout / 2)  # a server that was never reached bills nothing
        common: dict[str, Any] = {"http_client": http, "timeout": patience, "max_retries": 0}
        if end.deployment:
            self.client = openai.AsyncAzureOpenAI(
                azure_endpoint=end.url,
                azure_deployment=end.deployment,
                api_version=end.api_version,
                api_key=end.key,
                **common,
            )
        else:
            self.client = openai.AsyncOpenAI(base_url=end.url, api_key=end.key or "none", **common)


class AzureAPI(TextAPI):
    """`model` behind one or several endpoints that share the load, asked by `num_procs` workers.

    A worker hands over its answer before it takes the next prompt: a kill loses what `num_procs` workers wait for, no
    more. `max_requests` and `max_cost` (dollars, by the table in `prices`) bound the life of a run whose requests are
    counted in the file `log`, retries included; a kill leaves out those in flight. A request whose answer got lost
    counts as its estimate: it may be billed. `seed` reaches no server.
    """

    def __init__(
        self,
        model: str,
        *,
        endpoints: Sequence[Endpoint],
        temperature: float = 1.0,
        top_p: float = 1.0,
        num_procs: int = 16,
        timeout: float = 60.0,
        max_requests: int | None = None,
        max_cost: float | None = None,
        prices: Path | None = None,
        log: Path | None = None,
        progress: bool = True,
    ):
        if num_procs < 1 or timeout <= 0:
            raise InputError("num_procs has to be at least 1, and timeout above 0")
        self.model, self.num_procs, self.timeout, self.progress = model, num_procs, timeout, progress
        self.sampling = {"temperature": temperature, "top_p": top_p}
        self.servers = [_Server(number, endpoint) for number, endpoint in enumerate(endpoints, start=1)]
        self.max_requests, self.max_cost, self.log = max_requests, max_cost, log
        self.price = _price(model, prices or PRICES)
        if max_cost is not None and self.price is None:
            raise InputError(f"{prices or PRICES} has no price of {model!r}, which max_cost needs: add it to a table")
        self.requests = self.prompt_tokens = self.completion_tokens = 0  # over the life of the run
        for line in whole_lines(log) if log else ():
            self._count(line["prompt_tokens"], line["completion_tokens"])
            self.requests += 1
        self.retries = 0
        self._reserved = 0.0  # dollars, for what is in flight

    @property
    def cost(self) -> float | None:
        """Dollars spent so far; None without a price."""
        return None if self.price is None else self._dollars(self.prompt_tokens, self.completion_tokens)

    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        if not prompts:
            return []
        with contextlib.ExitStack() as stack:
            self._log_file = None
            if self.log:
                self.log.parent.mkdir(parents=True, exist_ok=True)
                self._log_file = stack.enter_context(open(self.log, "a", encoding="utf-8"))
            answers, reason = asyncio.run(self._ask(prompts, on_answer))
        if isinstance(reason, _Spent):
            raise InputError(
                f"the budget of {reason} is used up: {self._totals()}; raise it and run the same command, "
                "nothing is lost"
            )
        if isinstance(reason, _Stop):
            raise InputError(f"{reason}; the same command continues, {len(answers):,} answers are kept")
        if reason:
            raise reason from None
        return [answers[number] for number in range(len(prompts))]

    async def _ask(
        self, prompts: Sequence[Prompt], on_answer: OnAnswer
    ) -> tuple[dict[int, str | None], Exception | None]:
        """The answers by their number, and why there are not more of them."""
        answers: dict[int, str | None] = {}
        reasons: list[Exception] = []
        waiting = iter(enumerate(prompts))
        self._stopped = asyncio.Event()

        async def work() -> None:
            for number, prompt in waiting:
                try:
                    answer = await self._answer(prompt)
                    on_answer(number, answer)
                    answers[number] = answer
                except Exception as error:
                    reasons.append(error)
                    self._stopped.set()
                bar.set_postfix_str(f"{self.retries:,} retries, {self._totals()}", refresh=False)
                bar.update(len(answers) - bar.n)
                if self._stopped.is_set():
                    return

        # the workers bound the number of connections, so that the pool does not have to
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with openai.DefaultAsyncHttpxClient(limits=limits) as http:
            for server in self.servers:
                server.connect(http, self.timeout)
            with tqdm(total=len(prompts), unit="answer", desc="ask", disable=not self.progress) as bar:
                await asyncio.gather(*(work() for _ in range(min(self.num_procs, len(prompts)))))
        return answers, reasons[0] if reasons else None

    async def _answer(self, prompt: Prompt) -> str | None:
        async def sleep(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

        def wait(state: RetryCallState) -> float:
            self.retries += 1
            now = time.monotonic()
            other = any(server.shut is None and server.paused <= now for server in self.servers)
            # added, lest all come back at once
            return (0.0 if other else state.outcome.exception().wait) + BACKOFF(state)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(TRIES),
            wait=wait,
            sleep=sleep,
            reraise=True,
        )
        failed: set[int] = set()  # endpoints that failed this prompt: the others are asked first
        try:
            return await retrying(self._try, prompt, failed)
        except _Again as error:
            raise _Stop(f"{TRIES} tries of one request failed, the last with {error}") from None

    async def _try(self, prompt: Prompt, failed: set[int]) -> str | None:
        while True:
            server = self._pick(failed)
            length = server.length
            try:
                return await self._send(server, prompt, length)
            except openai.APIStatusError as error:
                body = error.body if isinstance(error.body, dict) else {}
                inner = body.get("innererror")
                codes = {error.code, str(inner.get("code")) if isinstance(inner, dict) else None}
                reason = self._show(str(body.get("message") or error.message))
                if error.status_code in SHUT:
                    if server.shut is None:
                        server.shut = error.status_code
                        tqdm.write(
                            f"warning: {server.name} answered {server.shut}: left out from now on",
                            file=sys.stderr,
                        )
                elif error.status_code in AGAIN or error.status_code >= 500:
                    failed.add(server.number)
                    wait = _retry_after(error.response.headers)
                    server.pause(wait)
                    self._tell(server, f"answered {error.status_code}, is asked again")
                    raise _Again(f"status {error.status_code} of {server.name}", wait) from None
                elif codes & FILTERED:
                    return None
                elif codes & TOO_LONG or "maximum context length" in reason:
                    self._tell(server, "refused a request as too long; such texts fall back to their source")
                    return None
                elif length == "max_tokens" and "max_tokens" in reason and "not supported" in reason:
                    server.length = "max_completion_tokens"
                else:
                    raise _Stop(f"{server.name} refused a request with {error.status_code}: {reason}") from None
            except (openai.APIConnectionError, TimeoutError, _Broken) as error:
                failed.add(server.number)
                server.pause()
                slow = isinstance(error, TimeoutError)
                what = type(error if slow else error.__cause__ or error).__name__.strip("_")
                self._tell(server, f"could not be asked ({what}), is asked again")
                raise _Again(f"{what} at {server.name}") from None

    def _tell(self, server: _Server, what: str) -> None:
        """Say a failure of an endpoint once: the bar alone would look as if nothing happened."""
        if what not in server.told:
            server.told.add(what)
            tqdm.write(f"warning: {server.name} {what}", file=sys.stderr)

    def _pick(self, failed: set[int]) -> _Server:
        """The usable server with the fewest requests in flight; of those that failed lately the first to open,
        and only if there is no other."""
        if self._stopped.is_set():
            raise _Stop("stopped")
        usable = [server for server in self.servers if server.shut is None]
        if not usable:
            what = ", ".join(f"{server.name}: {server.shut}" for server in self.servers)
            raise _Stop(f"no endpoint is left ({what}); check the key, the base URL, and the model or deployment name")
        now = time.monotonic()

        def rank(server: _Server) -> tuple[float, bool, int, int]:
            return max(server.paused, now), server.number in failed, server.in_flight, server.sent

        return min(usable, key=rank)

    async def _send(self, server: _Server, prompt: Prompt, length: str) -> str | None:
        """One request, within the budget, with its line in the log."""
        messages = [{"role": role, "content": _sound(text)} for role, text in prompt.turns()]
        # a blank or a digit is a token of two bytes, few are shorter; the rest is for what the server adds to a turn
        size = sum(len(message["content"].encode()) for message in messages)
        estimate = (size // 2 + 8 * len(messages), prompt.max_new_tokens)
        dollars = self._dollars(*estimate)
        if self.max_requests is not None and self.requests >= self.max_requests:
            raise _Spent(f"--max_requests {self.max_requests}")
        if self.max_cost is not None and (self.cost or 0) + self._reserved + dollars > self.max_cost:
            raise _Spent(f"--max_cost {self.max_cost:g}")
        self.requests += 1
        self._reserved += dollars
        server.sent += 1
        server.in_flight += 1
        start, status, used = time.monotonic(), "Cancelled", estimate
        try:
            assert server.client is not None
            async with asyncio.timeout(self.timeout):  # the client's own starts anew with every byte that comes
                raw = await server.client.chat.completions.with_raw_response.create(
                    model=server.endpoint.deployment or self.model,
                    messages=messages,
                    **{length: prompt.max_new_tokens},
                    **self.sampling,
                )
            answer, usage = _read(raw.http_response)
            status, used = raw.http_response.status_code, usage or estimate
            return answer
        except openai.APIStatusError as error:
            # a request that a filter or the server's own limits refused may be billed
            status, used = error.status_code, estimate if error.status_code in (400, 408) else (0, 0)
            raise
        except Exception as error:
            status = type(error).__name__.strip("_")
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                used = (0, 0)
            raise
        finally:
            server.in_flight -= 1
            self._reserved -= dollars
            self._count(*used)
            if self._log_file:
                line = {
                    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "endpoint": server.number,
                    "host": server.endpoint.host,
                    "status": status,
                    "prompt_tokens": used[0],
                    "completion_tokens": used[1],
                    "seconds": round(time.monotonic() - start, 3),
                }
                self._log_file.write(json.dumps(line) + "\n")
                self._log_file.flush()

    def _count(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def _dollars(self, prompt_tokens: int, completion_tokens: int) -> float:
        prompt_price, answer_price = self.price or (0.0, 0.0)
        return (prompt_tokens * prompt_price + completion_tokens * answer_price) / 1e6

    def _totals(self) -> str:
        return f"{self.requests:,} requests" + (f", ${self.cost:,.2f}" if self.cost is not None else "")

    def _show(self, text: str) -> str:
        """What a server says, on one short line without keys."""
        for server in self.servers:
            if server.endpoint.key:
                text = text.replace(server.endpoint.key, "[key]")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


class _Broken(Exception):
    """An answer that cannot be read."""


def _sound(text: str) -> str:
    """`text` without half characters (lone surrogates), which JSON can carry and no file can."""
    return text.encode(errors="replace").decode()


def _read(response: httpx2.Response) -> tuple[str | None, tuple[int, int] | None]:
    """The answer, None where the model refused, and the tokens of prompt and answer if the server says."""
    try:
        data = response.json()
        choice, usage = data["choices"][0], data.get("usage") or {}
        tokens = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        refused = bool(refusal) or choice.get("finish_reason") == "content_filter" or content is None
        return None if refused else _sound(content), tokens if all(isinstance(n, int) for n in tokens) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _Broken from None


def _retry_after(headers: httpx2.Headers) -> float:
    """The seconds that the server asks to wait, 0 where it does not say."""
    wait = headers.get("retry-after", "")
    readings = (
        lambda: float(headers.get("retry-after-ms", "")) / 1000,
        lambda: float(wait),
        lambda: email.utils.parsedate_to_datetime(wait).timestamp() - time.time(),
    )
    for read in readings:
        with contextlib.suppress(ValueError):
            seconds = read()
            return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else 0.0
    return 0.0


def _price(model: str, path: Path) -> tuple[float, float] | None:
    """Dollars per million tokens of prompt and answer."""
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        row = table.get(model)
        price = None if row is None else (float(row["input"]), float(row["output"]))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path} needs lines like `{model}: {{input: 0.5, output: 1.5}}`") from None
    if price and not all(0 <= dollars < math.inf for dollars in price):
        raise InputError(f"{path}: a price of {model} is not a number of dollars")
    return price
