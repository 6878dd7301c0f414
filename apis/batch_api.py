"""The batch interface of OpenAI and Azure OpenAI: answers within a day, for half the price."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import openai
from tqdm import tqdm

from apis.api import OnAnswer, Prompt
from apis.azure_api import Again, AzureAPI, Outcome, Refused, Stop, billed, messages_of, most_tokens
from apis.endpoints import Endpoint
from apis.journal import whole_lines
from apis.responses import Failure, NoAnswer, answer_of, failure_of
from apis.spending import Spent, Tokens
from dpsda.errors import InputError

MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000  # of a batch: the services take 50,000 and 200 MB
ROUNDS = 4  # of batches, the later ones for what failed
PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds between two looks at a batch
PAGE = 100  # batches of a list that are asked for at once
SKEW = 3600  # seconds by which the clock of a service may be behind
OVER = {"completed", "failed", "expired", "cancelled"}
NAME = "dpsda"  # what a batch's name is called in its metadata
FULL = "token_limit_exceeded"  # of a batch that is too much beside those under way
BATCH_ONLY = "OperationNotSupported"  # what an Azure deployment for batches says to an ordinary request
T = TypeVar("T")


class _Missing(Stop):
    """The service has no such thing."""


@dataclass
class _Batch:
    """A batch of a call, and which of the prompts at hand its lines answer."""

    call: int
    name: str = field(default_factory=lambda: secrets.token_hex(16))
    asks: list[str] = field(default_factory=list)  # a digest of the prompt of each line
    made: float = field(default_factory=time.time)
    id: str = ""
    numbers: dict[int, int] = field(default_factory=dict)  # of a prompt, by the place of its line
    reserved: dict[int, float] = field(default_factory=dict)  # dollars, by the place of a line that is not counted
    state: dict[str, Any] = field(default_factory=dict)  # what the service said last

    @property
    def status(self) -> str:
        return str(self.state["status"])

    @property
    def completed(self) -> int:
        return int((self.state.get("request_counts") or {}).get("completed") or 0)


@dataclass
class _Call:
    """The prompts of a call, and what is answered so far.

    `key` tells it from other calls of the run: seed and number of prompts together, as a journal adds to the one what
    it takes off the other.
    """

    key: int
    prompts: Sequence[Prompt]
    on_answer: OnAnswer
    bar: tqdm[Any]
    answers: dict[int, str | None] = field(default_factory=dict)

    def keep(self, number: int, answer: str | None) -> None:
        self.on_answer(number, answer)
        self.answers[number] = answer


class BatchAPI(AzureAPI):
    """`model` behind one endpoint, asked in batches.

    The file `batches.jsonl` beside `log` tells what a batch asks before it exists, and its id as soon as it does. An
    answer is handed over first and counted in `log` then, so a batch is over where each of its lines is counted there.
    A killed run that is started again waits for the batches that are not, and asks for nothing twice. One whose id was
    not stored is found by its name, if the service lists batches.
    """

    def __init__(self, model: str, *, endpoints: Sequence[Endpoint], log: Path | None = None, **options: Any):
        if len(endpoints) > 1:
            raise InputError(
                f"--api_batch asks one endpoint, and there are {len(endpoints)} of {model!r}: leave one in the file"
            )
        super().__init__(model, endpoints=endpoints, log=log, **options)
        self.record = log.with_name("batches.jsonl") if log else None

    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        answers = self._collect(partial(self._ask_in_batches, seed), prompts, on_answer, self.progress)
        return [answers[number] for number in range(len(prompts))]

    async def _ask(self, prompts: Sequence[Prompt], on_answer: OnAnswer, progress: bool) -> Outcome:
        """Ordinary requests, for a check. A deployment that refuses them as it is for batches passes it."""
        answers, reason = await super()._ask(prompts, on_answer, progress)
        return answers, None if isinstance(reason, Refused) and BATCH_ONLY in reason.failure.codes else reason

    async def _ask_in_batches(
        self, seed: int, prompts: Sequence[Prompt], on_answer: OnAnswer, progress: bool
    ) -> Outcome:
        with tqdm(total=len(prompts), unit="answer", desc="ask in batches", disable=not progress) as bar:
            call = _Call(seed + len(prompts), prompts, on_answer, bar)
            try:
                async with self._connected():
                    await self._rounds(call)
            except Exception as error:
                return call.answers, error
        return call.answers, None

    async def _rounds(self, call: _Call) -> None:
        """Batches of what has no answer, until everything has one. Raises what leaves prompts without."""
        batches = await self._under_way(call)
        try:
            for _ in range(ROUNDS):
                missing = {*range(len(call.prompts))} - call.answers.keys()
                missing.difference_update(*(batch.numbers.values() for batch in batches))
                end: Exception | None = None
                try:
                    for batch, lines in self._divide(call, sorted(missing)):
                        batches.append(batch)
                        await self._send_batch(batch, lines)
                except Spent as spent:  # what the budget allowed is under way
                    end = spent
                failures = await self._wait(call, batches)
                end = next((failure for failure in failures if not isinstance(failure, Again)), end)
                if end:
                    raise end
                if not failures:
                    return
                batches = []
            raise Stop(
                f"{ROUNDS} tries of one request failed, the last with {failures[-1]}; the same command continues"
            )
        finally:
            for batch in batches:
                self._give_back(batch)

    async def _under_way(self, call: _Call) -> list[_Batch]:
        """Batches of a killed run that answer some of the prompts."""
        wanted: dict[str, list[int]] = defaultdict(list)
        for number, prompt in enumerate(call.prompts):
            wanted[_digest(prompt)].append(number)
        found = []
        for batch in self._recorded():
            if batch.call != call.key:
                continue
            left = [place for place in range(len(batch.asks)) if (batch.id, place) not in self.spending.batched]
            if any(wanted.get(batch.asks[place]) for place in left) and await self._exists(batch):
                for place in reversed(left):  # of lines with the same prompt, the first may have been handed over
                    most = (0, 0)
                    if numbers := wanted.get(batch.asks[place]):
                        batch.numbers[place] = numbers.pop()
                        most = _most(call.prompts[batch.numbers[place]])
                    batch.reserved[place] = self.spending.reserve(most, batch=True, asked=True)
                found.append(batch)
        return found

    def _recorded(self) -> list[_Batch]:
        found: dict[str, _Batch] = {}
        for line in whole_lines(self.record) if self.record else ():
            if "id" in line:
                found[line["name"]].id = line["id"]
            else:
                found[line["name"]] = _Batch(line["call"], line["name"], line["asks"], line["time"])
        return [*found.values()]

    def _note(self, batch: _Batch, **facts: Any) -> None:
        """A line of a batch, on disk before anything else happens."""
        if self.record:
            with open(self.record, "a", encoding="utf-8") as file:
                file.write(json.dumps({"name": batch.name, **facts}) + "\n")
                file.flush()
                os.fsync(file.fileno())

    async def _exists(self, batch: _Batch) -> bool:
        """Whether the service has a recorded batch, and did not refuse it as a whole."""
        try:
            batch.state = await self._look(batch) if batch.id else await self._find(batch) or {}
        except _Missing:
            return False
        if batch.state and not batch.id:
            batch.id = batch.state["id"]
            self._note(batch, id=batch.id)
        return bool(batch.state) and batch.status != "failed"

    async def _look(self, batch: _Batch) -> dict[str, Any]:
        return await self._call(partial(self._batches.retrieve, batch.id), _object)

    async def _find(self, batch: _Batch) -> dict[str, Any] | None:
        """What the service says of the batch of this name, if there is one; it lists the last ones first."""
        more: dict[str, Any] = {}
        while True:
            try:
                page = await self._call(partial(self._batches.list, limit=PAGE, **more), _object)
            except _Missing:  # there may be batches, and no list of them
                return None
            listed = page.get("data") or []
            for state in listed:
                if (state.get("metadata") or {}).get(NAME) == batch.name:
                    return dict(state)
            if not page.get("has_more") or listed[-1].get("created_at", 0) < batch.made - SKEW:
                return None
            more = {"after": listed[-1]["id"]}

    def _divide(self, call: _Call, numbers: list[int]) -> Iterator[tuple[_Batch, list[bytes]]]:
        """Batches and their lines, as large as the service takes them. Spent after the last that the budget allows."""
        batch, lines, size = _Batch(call.key), list[bytes](), 0
        for number in numbers:
            line = self._line(call.prompts[number], len(lines))
            if len(lines) == MOST_REQUESTS or (lines and size + len(line) > MOST_BYTES):
                yield batch, lines
                batch, lines, size = _Batch(call.key), [], 0
                line = self._line(call.prompts[number], 0)
            try:
                reserved = self.spending.reserve(_most(call.prompts[number]), batch=True)
            except Spent:
                if lines:
                    yield batch, lines
                raise
            place = len(lines)
            batch.asks.append(_digest(call.prompts[number]))
            batch.numbers[place], batch.reserved[place] = number, reserved
            lines.append(line)
            size += len(line)
        if lines:
            yield batch, lines

    def _line(self, prompt: Prompt, place: int) -> bytes:
        server = self.servers[0]
        body = {
            "model": server.endpoint.deployment or self.model,
            "messages": messages_of(prompt),
            **self._parameters(server, prompt),
        }
        return json.dumps({"custom_id": str(place), "method": "POST", "url": self._path, "body": body}).encode() + b"\n"

    @property
    def _path(self) -> str:
        return "/chat/completions" if self.servers[0].endpoint.deployment else "/v1/chat/completions"

    async def _send_batch(self, batch: _Batch, lines: list[bytes]) -> None:
        self._note(batch, call=batch.call, time=batch.made, asks=batch.asks)

        async def create() -> dict[str, Any]:
            if made := await self._find(batch):  # the answer to an earlier try got lost
                return made
            return await self._request(
                partial(
                    self._batches.create,
                    input_file_id=file["id"],
                    endpoint=self._path,
                    completion_window="24h",
                    metadata={NAME: batch.name},
                ),
                _object,
            )

        try:
            content = ("requests.jsonl", b"".join(lines))
            file = await self._call(partial(self._files.create, file=content, purpose="batch"), _object)
            while file.get("status") in ("pending", "running"):  # Azure reads a file before it takes a batch of it
                await asyncio.sleep(PAUSE)
                file = await self._call(partial(self._files.retrieve, file["id"]), _object)
            batch.state = await self._persist(create)
        except _Missing as missing:
            raise Stop(f"{missing}; it seems to have no batches, so leave --api_batch out") from None
        batch.id = batch.state["id"]
        self._note(batch, id=batch.id)

    async def _wait(self, call: _Call, batches: list[_Batch]) -> list[Exception]:
        """Hand over the answers of each batch when it is over; why there are not more of them."""
        failures: list[Exception] = []
        running, pause = [*batches], PAUSE
        while running:
            for batch in [*running]:
                batch.state = await self._look(batch)
                if batch.status in OVER:
                    running.remove(batch)
                    failures += await self._take(call, batch)
            completed = sum(batch.completed for batch in running)
            call.bar.update(len(call.answers) + completed - call.bar.n)
            call.bar.set_postfix_str(f"{len(running)} batches under way, {self.spending.totals}")
            if running:
                await asyncio.sleep(pause)
                pause = min(1.5 * pause, LONGEST_PAUSE)
        return failures

    async def _take(self, call: _Call, batch: _Batch) -> list[Exception]:
        """Hand over the answers of a batch that is over, and count them; why there are not more of them."""
        server, failures = self.servers[0], list[Exception]()
        if batch.status == "failed":
            self._give_back(batch)
            return [self._refused(batch)]
        lines = await self._lines(batch)
        seconds = round(time.time() - batch.made, 3)
        for place in sorted(batch.reserved):
            number = batch.numbers.get(place)
            most = (0, 0) if number is None else _most(call.prompts[number])
            status, used, result = _read(lines.get(place), most, batch.status)
            if number is not None:
                try:
                    call.keep(number, self._text(call.prompts[number], result))
                except (Again, Stop) as failure:
                    failures.append(failure)
            self.spending.settle(
                batch.reserved.pop(place),
                used,
                endpoint=server.number,
                host=server.endpoint.host,
                status=status,
                seconds=seconds,
                batch=batch.id,
                place=place,
            )
        return failures

    def _refused(self, batch: _Batch) -> Exception:
        """Why nothing of a batch was asked."""
        errors = (batch.state.get("errors") or {}).get("data") or [{}]
        what = f"{self.servers[0].name} refused a batch"
        words = str(errors[0].get("message") or "")
        if errors[0].get("code") == FULL:
            self._tell(self.servers[0], "refused a batch, is asked again", words)
            return Again(self._say(what, words))
        return Stop(self._say(what, words))

    async def _lines(self, batch: _Batch) -> dict[int, dict[str, Any]]:
        """The lines of the files of answers and of errors, by their place."""
        found = {}
        for name in ("output_file_id", "error_file_id"):
            if not batch.state.get(name):
                continue
            try:
                content = partial(self._files.content, batch.state[name])
                text = await self._call(content, lambda response: response.content)
            except _Missing:  # somebody deleted it, so what it held is asked for again
                continue
            for line in text.split(b"\n"):
                with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
                    fields = json.loads(line)
                    found[int(fields["custom_id"])] = fields
        return found

    def _text(self, prompt: Prompt, result: str | Failure | None) -> str | None:
        """The answer of a line. Raises Again where the prompt has to be asked again, and Stop where that is no use."""
        if not isinstance(result, Failure):
            return result
        server = self.servers[0]
        if self._without_text(server, result):
            return result.text
        if result.lasts:
            self._shut(server, result)
            raise self._end()
        self.retries += 1
        if result.passes:
            raise self._again(server, result)
        self._do_without(server, result, self.sampling | {"max_tokens": prompt.max_new_tokens})
        raise Again(self._say(f"status {result.status} at {server.name}", result.words))

    async def _call(self, request: Callable[[], Awaitable[Any]], read: Callable[[httpx2.Response], T]) -> T:
        """What `read` finds in the response to a request, which is sent again while it fails in a way that passes."""
        return await self._persist(self._request, request, read)

    async def _request(self, request: Callable[[], Awaitable[Any]], read: Callable[[httpx2.Response], T]) -> T:
        server = self._pick(set())
        try:
            return read((await request()).http_response)
        except (openai.APIError, NoAnswer) as error:
            failure = self._failure(error)
        if failure.status in (404, 405, 501):
            raise _Missing(self._say(f"{server.name} answered {failure.status}", failure.words))
        if failure.lasts:
            self._shut(server, failure)
            raise self._end()
        if failure.passes:
            raise self._again(server, failure)
        raise Stop(self._say(f"{server.name} refused a batch with {failure.status}", failure.words))

    def _give_back(self, batch: _Batch) -> None:
        for dollars in batch.reserved.values():
            self.spending.give_back(dollars)
        batch.reserved.clear()

    @property
    def _files(self) -> Any:
        assert self.servers[0].client is not None
        return self.servers[0].client.files.with_raw_response

    @property
    def _batches(self) -> Any:
        assert self.servers[0].client is not None
        return self.servers[0].client.batches.with_raw_response


def _digest(prompt: Prompt) -> str:
    return hashlib.blake2b(json.dumps(astuple(prompt)).encode(), digest_size=8).hexdigest()


def _most(prompt: Prompt) -> Tokens:
    return most_tokens(messages_of(prompt), prompt)


def _object(response: httpx2.Response) -> dict[str, Any]:
    """The fields of a file, a batch, or a list of batches."""
    with contextlib.suppress(ValueError, RecursionError):
        data = response.json()
        if isinstance(data, dict) and (isinstance(data.get("data"), list) or "id" in data):
            return data
    raise NoAnswer(failure_of(response))


def _read(
    line: dict[str, Any] | None, most: Tokens, batch_status: str
) -> tuple[int | str, Tokens, str | Failure | None]:
    """The status of a line, the tokens that it took, and its answer, or why it has none."""
    if line is None:  # what expired or was cancelled may have none
        return batch_status, (0, 0), Failure(f"its batch is {batch_status} without it", error="NoLine")
    told, error = (value if isinstance(value, dict) else {} for value in (line.get("response"), line.get("error")))
    if not isinstance(told.get("status_code"), int):
        code = str(error.get("code") or "NoResponse")
        return code, (0, 0), Failure(str(error.get("message") or ""), error=code, codes=frozenset([code]))
    response = httpx2.Response(told["status_code"], json=told.get("body"))
    if not response.is_success:
        return response.status_code, billed(response.status_code, most), failure_of(response)
    try:
        answer, tokens = answer_of(response)
    except NoAnswer as error:
        return response.status_code, most, error.failure
    return response.status_code, tokens or most, answer
