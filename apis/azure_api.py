"""Models behind a server: Azure OpenAI, OpenAI, or whatever speaks OpenAI's protocol, such as vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import openai
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tqdm import tqdm

from apis.api import OnAnswer, Prompt, TextAPI
from apis.endpoints import Endpoint
from apis.journal import whole_lines
from apis.prices import PRICES, price_of
from apis.responses import LONG_WAIT, LONGEST_WAIT, WRONG, Failure, NoAnswer, answer_of, failure_of, sound
from dpsda.errors import InputError

TRIES = 10  # of one prompt
BACKOFF = wait_random_exponential(multiplier=0.5, max=60)
PAUSE = 1.0  # seconds for which an endpoint that failed without a Retry-After is not the first choice
CHECK_LENGTH = 16  # tokens of an answer that nobody reads: some servers take no smaller limit
for _name in ("openai", "httpx2", "httpcore2"):  # they would quote URLs and what servers say
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


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
    proxy: httpx2.Proxy | None
    client: openai.AsyncOpenAI | None = None
    in_flight: int = 0
    sent: int = 0
    reported: set[str] = field(default_factory=set)  # the failures that the user has heard of
    shut: Failure | None = None  # what took it out of use
    paused: float = 0.0  # until when others are asked first, by time.monotonic()
    refused: set[str] = field(default_factory=set)  # parameters that it does not take

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

    An endpoint that will not answer any more is left out, in the server's own words, and the others go on. A parameter
    that a server does not take is left out for that server.
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
        self.servers = [_Server(number, end, end.proxy()) for number, end in enumerate(endpoints, start=1)]
        self.max_requests, self.max_cost, self.log = max_requests, max_cost, log
        self.price = price_of(model, prices or PRICES)
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
        answers = self._collect(prompts, on_answer, self.progress)
        return [answers[number] for number in range(len(prompts))]

    def check(self, prompt: Prompt) -> None:
        short = replace(prompt, max_new_tokens=min(prompt.max_new_tokens, CHECK_LENGTH))
        self._collect([short], lambda number, answer: None, progress=False)

    def _collect(self, prompts: Sequence[Prompt], on_answer: OnAnswer, progress: bool) -> dict[int, str | None]:
        """Every answer by its number."""
        if not prompts:
            return {}
        with contextlib.ExitStack() as stack:
            self._log_file = None
            if self.log:
                self.log.parent.mkdir(parents=True, exist_ok=True)
                self._log_file = stack.enter_context(open(self.log, "a", encoding="utf-8"))
            answers, reason = asyncio.run(self._ask(prompts, on_answer, progress))
        if isinstance(reason, _Spent):
            raise InputError(
                f"the budget of {reason} is used up: {self._totals()}; raise it and run the same command, "
                "nothing is lost"
            )
        if isinstance(reason, _Stop):
            raise InputError(f"{reason}{f', {len(answers):,} answers are kept' if answers else ''}")
        if reason:
            raise reason from None
        return answers

    async def _ask(
        self, prompts: Sequence[Prompt], on_answer: OnAnswer, progress: bool
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
        routes = {
            f"https://{server.endpoint.host}": httpx2.AsyncHTTPTransport(limits=limits, proxy=server.proxy)
            for server in self.servers
            if server.proxy
        }
        # a transport of our own, so that the environment does not choose; a redirect could take the key to anybody
        direct = httpx2.AsyncHTTPTransport(limits=limits)
        async with httpx2.AsyncClient(transport=direct, mounts=routes, follow_redirects=False) as http:
            for server in self.servers:
                server.connect(http, self.timeout)
            with tqdm(total=len(prompts), unit="answer", desc="ask", disable=not progress) as bar:
                await asyncio.gather(*(work() for _ in range(min(self.num_procs, len(prompts)))))
        return answers, reasons[0] if reasons else None

    async def _answer(self, prompt: Prompt) -> str | None:
        async def sleep(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

        def wait(state: RetryCallState) -> float:
            self.retries += 1
            opens = min((server.paused for server in self.servers if server.shut is None), default=0.0)
            assert state.outcome is not None
            error = state.outcome.exception()
            assert isinstance(error, _Again)  # nothing else is tried again
            # added, lest all come back at once
            return max(0.0, min(error.wait, opens - time.monotonic())) + BACKOFF(state)

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
            raise _Stop(
                f"{TRIES} tries of one request failed, the last with {error}; the same command continues"
            ) from None

    async def _try(self, prompt: Prompt, failed: set[int]) -> str | None:
        while True:
            server = self._pick(failed)
            parameters = self._parameters(server, prompt)
            try:
                return await self._send(server, prompt, parameters)
            except openai.APIStatusError as error:
                failure = failure_of(error.response)
            except NoAnswer as error:
                failure = error.failure
            except (openai.APIConnectionError, TimeoutError) as error:
                cause = error.__cause__ or error
                if isinstance(error, TimeoutError):
                    cause = TimeoutError(f"nothing within {self.timeout:g} seconds")
                failure = Failure(str(cause), error=type(cause).__name__)
            if failure.filtered:
                return None
            if failure.too_long:
                self._tell(server, "refused a request as too long; such texts stay as they are")
                return None
            if failure.thought_only:
                return ""
            if failure.lasts:
                self._shut(server, failure)
            elif failure.passes:
                failed.add(server.number)
                raise self._again(server, failure)
            else:
                self._do_without(server, failure, parameters)

    def _parameters(self, server: _Server, prompt: Prompt) -> dict[str, float]:
        """How the answer is drawn, by the names that this server takes."""
        length = "max_completion_tokens" if "max_tokens" in server.refused else "max_tokens"
        wanted = self.sampling | {length: prompt.max_new_tokens}
        return {name: value for name, value in wanted.items() if name not in server.refused}

    def _do_without(self, server: _Server, failure: Failure, parameters: dict[str, float]) -> None:
        """Ask without the parameter that a server refuses from now on, or stop if that is none of them."""
        named = failure.refuses({name: value for name, value in parameters.items() if name != "max_completion_tokens"})
        if named is None:
            what = self._say(f"{server.name} refused a request with {failure.status}", failure.words)
            raise _Stop(f"{what}; it would refuse the same request again")
        server.refused.add(named)
        instead = "gets max_completion_tokens" if named == "max_tokens" else "is asked without it"
        self._tell(server, f"does not take {named}, {instead} from now on", failure.words)

    def _again(self, server: _Server, failure: Failure) -> _Again:
        server.pause(failure.wait)
        more = "" if failure.wait > LONG_WAIT else ", is asked again"
        self._tell(server, failure.what + more, failure.words)
        what = f"status {failure.status}" if failure.status else failure.error
        return _Again(self._say(f"{what} at {server.name}", failure.words), failure.wait)

    def _shut(self, server: _Server, failure: Failure) -> None:
        """Leave an endpoint out, with a word where others go on: where none does, the run's end says it."""
        if server.shut is None:
            server.shut = failure
            if any(other.shut is None for other in self.servers):
                self._tell(server, f"{failure.what}, is left out from now on", failure.words)

    def _tell(self, server: _Server, what: str, words: str = "") -> None:
        """Say a failure of an endpoint once: the bar alone would look as if nothing happened."""
        if what not in server.reported:
            server.reported.add(what)
            tqdm.write(self._say(f"warning: {server.name} {what}", words), file=sys.stderr)

    def _say(self, what: str, words: str) -> str:
        shown = self._show(words)
        return f"{what}: {shown}" if shown else what

    def _pick(self, failed: set[int]) -> _Server:
        """The usable server with the fewest requests in flight; of those that failed lately the first to open,
        and only if there is no other."""
        if self._stopped.is_set():
            raise _Stop("stopped")
        usable = [server for server in self.servers if server.shut is None]
        if not usable:
            raise self._end()
        now = time.monotonic()

        def rank(server: _Server) -> tuple[float, bool, int, int]:
            return max(server.paused, now), server.number in failed, server.in_flight, server.sent

        return min(usable, key=rank)

    def _end(self) -> _Stop:
        """No endpoint is left: why, and when to come back."""
        ends = [(server, server.shut) for server in self.servers if server.shut]
        what = "; ".join(self._say(f"{server.name} {failure.what}", failure.words) for server, failure in ends)
        if any(failure.wait > LONGEST_WAIT for _, failure in ends):
            then = "the same command continues then"
        elif any(failure.status in WRONG for _, failure in ends):
            then = "check the key, the base URL, and the model or deployment name, then the same command continues"
        else:
            then = "when that is settled the same command continues"
        return _Stop(f"no endpoint is left ({what}); {then}")

    async def _send(self, server: _Server, prompt: Prompt, parameters: dict[str, Any]) -> str | None:
        """One request, within the budget, with its line in the log."""
        messages: list[Any] = [{"role": role, "content": sound(text)} for role, text in prompt.turns()]
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
        start, used = time.monotonic(), estimate
        status: str | int = "Cancelled"
        try:
            assert server.client is not None
            async with asyncio.timeout(self.timeout):  # the client's own starts anew with every byte that comes
                raw = await server.client.chat.completions.with_raw_response.create(
                    model=server.endpoint.deployment or self.model,
                    messages=messages,
                    **parameters,
                )
            answer, usage = answer_of(raw.http_response)
            status, used = raw.http_response.status_code, usage or estimate
            return answer
        except openai.APIStatusError as error:
            # a request that a filter or the server's own limits refused may be billed
            status, used = error.status_code, estimate if error.status_code in (400, 408) else (0, 0)
            raise
        except Exception as error:
            status = type(error).__name__.strip("_")
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
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
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return (line if len(line) <= 200 else f"{line[:199]}…").rstrip(".")
