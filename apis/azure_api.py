"""Models behind a server: Azure OpenAI, OpenAI, or whatever speaks OpenAI's protocol, such as vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

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
from apis.responses import LONG_WAIT, LONGEST_WAIT, WRONG, Failure, NoAnswer, answer_of, failure_of, sound
from apis.spending import Spending, Spent, Tokens
from dpsda.errors import InputError

TRIES = 10  # of one prompt
BACKOFF = wait_random_exponential(multiplier=0.5, max=60)
PAUSE = 1.0  # seconds for which an endpoint that failed without a Retry-After is not the first choice
CHECK_LENGTH = 16  # tokens of an answer that nobody reads: some servers take no smaller limit
for _name in ("openai", "httpx2", "httpcore2"):  # they would quote URLs and what servers say
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
T = TypeVar("T")
Outcome = tuple[dict[int, str | None], Exception | None]  # the answers by their number, and why there are not more


class Again(Exception):
    """This try failed and another may not; `wait` is the least number of seconds before it."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


class Stop(Exception):
    """Nothing more can be asked."""


class Refused(Stop):
    """A request was refused that would be refused again."""

    def __init__(self, message: str, failure: Failure):
        super().__init__(message)
        self.failure = failure


@dataclass
class Server:
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
        self.servers = [Server(number, end, end.proxy()) for number, end in enumerate(endpoints, start=1)]
        self.spending = Spending(model, max_requests=max_requests, max_cost=max_cost, prices=prices, log=log)
        self.retries = 0

    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        answers = self._collect(self._ask, prompts, on_answer, self.progress)
        return [answers[number] for number in range(len(prompts))]

    @property
    def tokens_generated(self) -> int:
        return self.spending.completion_tokens

    def check(self, prompt: Prompt) -> None:
        short = replace(prompt, max_new_tokens=min(prompt.max_new_tokens, CHECK_LENGTH))
        self._collect(self._ask, [short], lambda number, answer: None, progress=False)

    def _collect(
        self,
        ask: Callable[[Sequence[Prompt], OnAnswer, bool], Coroutine[Any, Any, Outcome]],
        prompts: Sequence[Prompt],
        on_answer: OnAnswer,
        progress: bool,
    ) -> dict[int, str | None]:
        """Every answer by its number."""
        if not prompts:
            return {}
        with self.spending.recording():
            answers, reason = asyncio.run(ask(prompts, on_answer, progress))
        if isinstance(reason, Spent):
            raise InputError(
                f"the budget of {reason} is used up: {self.spending.totals}; raise it and run the same command, "
                "nothing is lost"
            )
        if isinstance(reason, Stop):
            raise InputError(f"{reason}{f', {len(answers):,} answers are kept' if answers else ''}")
        if reason:
            raise reason from None
        return answers

    async def _ask(self, prompts: Sequence[Prompt], on_answer: OnAnswer, progress: bool) -> Outcome:
        answers: dict[int, str | None] = {}
        reasons: list[Exception] = []
        waiting = iter(enumerate(prompts))
        start, before = time.monotonic(), self.tokens_generated

        async def work() -> None:
            for number, prompt in waiting:
                try:
                    answer = await self._answer(prompt)
                    on_answer(number, answer)
                    answers[number] = answer
                except Exception as error:
                    reasons.append(error)
                    self._stopped.set()
                rate = (self.tokens_generated - before) / max(time.monotonic() - start, 1e-9)
                bar.set_postfix_str(
                    f"{rate:.0f} tokens/s, {self.retries:,} retries, {self.spending.totals}", refresh=False
                )
                bar.update(len(answers) - bar.n)
                if self._stopped.is_set():
                    return

        async with self._connected():
            with tqdm(total=len(prompts), unit="answer", desc="ask", disable=not progress) as bar:
                await asyncio.gather(*(work() for _ in range(min(self.num_procs, len(prompts)))))
        return answers, reasons[0] if reasons else None

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """Every endpoint has a client meanwhile."""
        self._stopped = asyncio.Event()
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
            yield

    async def _answer(self, prompt: Prompt) -> str | None:
        failed: set[int] = set()  # endpoints that failed this prompt: the others are asked first
        return await self._persist(self._try, prompt, failed)

    async def _persist(self, attempt: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """What `attempt` gives, which is made again while it raises Again."""

        async def sleep(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

        def wait(state: RetryCallState) -> float:
            self.retries += 1
            opens = min((server.paused for server in self.servers if server.shut is None), default=0.0)
            assert state.outcome is not None
            error = state.outcome.exception()
            assert isinstance(error, Again)  # nothing else is tried again
            # added, lest all come back at once
            return max(0.0, min(error.wait, opens - time.monotonic())) + BACKOFF(state)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Again),
            stop=stop_after_attempt(TRIES),
            wait=wait,
            sleep=sleep,
            reraise=True,
        )
        try:
            return await retrying(attempt, *arguments)
        except Again as error:
            raise Stop(
                f"{TRIES} tries of one request failed, the last with {error}; the same command continues"
            ) from None

    async def _try(self, prompt: Prompt, failed: set[int]) -> str | None:
        while True:
            server = self._pick(failed)
            parameters = self._parameters(server, prompt)
            try:
                return await self._send(server, prompt, parameters)
            except (openai.APIError, NoAnswer, TimeoutError) as error:
                failure = self._failure(error)
            if self._without_text(server, failure):
                return failure.text
            if failure.lasts:
                self._shut(server, failure)
            elif failure.passes:
                failed.add(server.number)
                raise self._again(server, failure)
            else:
                self._do_without(server, failure, parameters)

    def _failure(self, error: openai.APIError | NoAnswer | TimeoutError) -> Failure:
        if isinstance(error, openai.APIStatusError):
            return failure_of(error.response)
        if isinstance(error, NoAnswer):
            return error.failure
        cause = error.__cause__ or error
        if isinstance(error, TimeoutError):
            cause = TimeoutError(f"nothing within {self.timeout:g} seconds")
        return Failure(str(cause), error=type(cause).__name__)

    def _without_text(self, server: Server, failure: Failure) -> bool:
        """Whether a request is answered by its failure: another try would have no text, either."""
        if failure.too_long:
            self._tell(server, "refused a request as too long; such texts stay as they are")
        return failure.filtered or failure.too_long or failure.thought_only

    def _parameters(self, server: Server, prompt: Prompt) -> dict[str, float]:
        """How the answer is drawn, by the names that this server takes."""
        length = "max_completion_tokens" if "max_tokens" in server.refused else "max_tokens"
        wanted = self.sampling | {length: prompt.max_new_tokens}
        return {name: value for name, value in wanted.items() if name not in server.refused}

    def _do_without(self, server: Server, failure: Failure, parameters: dict[str, float]) -> None:
        """Ask without the parameter that a server refuses from now on, or stop if that is none of them."""
        named = failure.refuses({name: value for name, value in parameters.items() if name != "max_completion_tokens"})
        if named is None:
            what = self._say(f"{server.name} refused a request with {failure.status}", failure.words)
            raise Refused(f"{what}; it would refuse the same request again", failure)
        server.refused.add(named)
        instead = "gets max_completion_tokens" if named == "max_tokens" else "is asked without it"
        self._tell(server, f"does not take {named}, {instead} from now on", failure.words)

    def _again(self, server: Server, failure: Failure) -> Again:
        server.pause(failure.wait)
        more = "" if failure.wait > LONG_WAIT else ", is asked again"
        self._tell(server, failure.what + more, failure.words)
        what = f"status {failure.status}" if failure.status else failure.error
        return Again(self._say(f"{what} at {server.name}", failure.words), failure.wait)

    def _shut(self, server: Server, failure: Failure) -> None:
        """Leave an endpoint out, with a word where others go on: where none does, the run's end says it."""
        if server.shut is None:
            server.shut = failure
            if any(other.shut is None for other in self.servers):
                self._tell(server, f"{failure.what}, is left out from now on", failure.words)

    def _tell(self, server: Server, what: str, words: str = "") -> None:
        """Say a failure of an endpoint once: the bar alone would look as if nothing happened."""
        if what not in server.reported:
            server.reported.add(what)
            tqdm.write(self._say(f"warning: {server.name} {what}", words), file=sys.stderr)

    def _say(self, what: str, words: str) -> str:
        shown = self._show(words)
        return f"{what}: {shown}" if shown else what

    def _pick(self, failed: set[int]) -> Server:
        """The usable server with the fewest requests in flight; of those that failed lately the first to open,
        and only if there is no other."""
        if self._stopped.is_set():
            raise Stop("stopped")
        usable = [server for server in self.servers if server.shut is None]
        if not usable:
            raise self._end()
        now = time.monotonic()

        def rank(server: Server) -> tuple[float, bool, int, int]:
            return max(server.paused, now), server.number in failed, server.in_flight, server.sent

        return min(usable, key=rank)

    def _end(self) -> Stop:
        """No endpoint is left: why, and when to come back."""
        ends = [(server, server.shut) for server in self.servers if server.shut]
        what = "; ".join(self._say(f"{server.name} {failure.what}", failure.words) for server, failure in ends)
        if any(failure.wait > LONGEST_WAIT for _, failure in ends):
            then = "the same command continues then"
        elif any(failure.status in WRONG for _, failure in ends):
            then = "check the key, the base URL, and the model or deployment name, then the same command continues"
        else:
            then = "when that is settled the same command continues"
        return Stop(f"no endpoint is left ({what}); {then}")

    async def _send(self, server: Server, prompt: Prompt, parameters: dict[str, Any]) -> str | None:
        """One request, within the budget, with its line in the log."""
        messages = messages_of(prompt)
        most = most_tokens(messages, prompt)
        reserved = self.spending.reserve(most)
        server.sent += 1
        server.in_flight += 1
        start, used = time.monotonic(), most
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
            status, used = raw.http_response.status_code, usage or most
            return answer
        except openai.APIStatusError as error:
            status, used = error.status_code, billed(error.status_code, most)
            raise
        except Exception as error:
            status = type(error).__name__.strip("_")
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
                used = (0, 0)
            raise
        finally:
            server.in_flight -= 1
            self.spending.settle(
                reserved,
                used,
                endpoint=server.number,
                host=server.endpoint.host,
                status=status,
                seconds=round(time.monotonic() - start, 3),
            )

    def _show(self, text: str) -> str:
        """What a server says, on one short line without keys."""
        for server in self.servers:
            if server.endpoint.key:
                text = text.replace(server.endpoint.key, "[key]")
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return (line if len(line) <= 200 else f"{line[:199]}…").rstrip(".")


def messages_of(prompt: Prompt) -> list[Any]:
    return [{"role": role, "content": sound(text)} for role, text in prompt.turns()]


def most_tokens(messages: list[Any], prompt: Prompt) -> Tokens:
    """What a request may take."""
    # a blank or a digit is a token of two bytes, few are shorter; the rest is for what the server adds to a turn
    size = sum(len(message["content"].encode()) for message in messages)
    return size // 2 + 8 * len(messages), prompt.max_new_tokens


def billed(status: int, most: Tokens) -> Tokens:
    """The tokens of a failed request: one that a filter or the server's own limits refused may be billed."""
    return most if status in (400, 408) else (0, 0)
