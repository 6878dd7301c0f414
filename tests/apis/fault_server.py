"""A server that speaks the chat and batch protocols of OpenAI and Azure, and fails on purpose.

    python tests/apis/fault_server.py '{"keys": ["k"], "delay": 0.02, "rates": {"429": 0.1}}'

It prints its port. Its one argument, in JSON, may hold:
    keys      the keys that it takes (default: any, or none)
    delay     seconds before an answer
    rates     of "429", "500", "timeout", "truncated", "401" (only for the last key): drawn for every request;
              of "filter": which prompts are refused, half of them with status 400, half by finish_reason; and of any
              fault that is listed below
    script    faults of the first requests instead, or null for an answer
    headers   of a 429
    log       a file that gets a line for every request: its prompt, path, key, fault, parameters
    batches   how often a batch is looked at before it is over; without it there are no files and batches (404)
    calls     faults of the first calls about files and batches, or null: a status; "lost", if it is done and the answer
              does not come; "pending", if a file is not read yet; "invalid" or "full", if a batch fails as a whole

The lines of a batch have faults as requests have, when it is made. A call about files and batches has a line in `log`,
too: its `call`, path, key and fault.

Faults beside those of `rates`:
    "400", "402", "404"     with an echo of key and prompt
    "spent"                 429 that never passes: the quota is used up
    "spent in 200"          the same, as a gateway passes it on
    "error in 200"          no choices, and an error that passes
    "html", "gateway"       a page for people instead of JSON, with status 200 or 502
    "nothing"               status 200 and no body
    "redirect"              307 to another address
    "too long"              400: more than the model's context
    "no temperature", "no top_p", "no max_tokens"     400 of a server that does not take it, each in other words
    "reasoning"             all three of them, one after the other
    "extra"                 422: no top_p, as FastAPI says it
    "both"                  400: temperature and top_p together
    "role"                  400: no system turn
    "range"                 400: a temperature above the maximum
    "filter, no message", "filter, null message"     stopped by a filter before there was a text
    "refusal", "empty"      the model refuses, with and without a word
    "length", "thought"     a reasoning model thinks and answers nothing, at its limit or before
    "thought only"          400 instead of that
    "parts"                 the answer as a list of parts
    "parts, refused"        a refusal in one of them
    "no usage"              an answer whose tokens nobody counted
    "drip"                  white space for 10 seconds
    "batch only"            400: a deployment that takes no ordinary request
    "expired", "no line"    of a line of a batch: an error of its own, or nothing
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
import zlib
from typing import Any
from urllib.parse import parse_qs


def reply(prompt: str) -> str:
    """The answer to `prompt`, and to no other."""
    return f"{zlib.crc32(prompt.encode()):08x}: {prompt.upper()}"


def filtered(prompt: str, rate: float) -> bool:
    return zlib.crc32(prompt.encode()) % 10_000 < rate * 10_000


def error(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": None, "param": None, "code": None, **more}}).encode()


def completion(content: Any, finish: str = "stop", **more: Any) -> bytes:
    return choice({"message": {"role": "assistant", "content": content, **more}}, finish)


def choice(fields: dict[str, Any], finish: str) -> bytes:
    choices = [{"index": 0, "finish_reason": finish, **fields}]
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return json.dumps({"object": "chat.completion", "choices": choices, "usage": usage}).encode()


def without_choices(content: bytes) -> bytes:
    return json.dumps({"choices": None, **json.loads(content)}).encode()


PAGE = b"""<!DOCTYPE html><html><head><title>Sign in</title><style>body { color: red }</style>
<script>let secret = "<p>";</script></head><body><h1>Welcome &amp; hello</h1>
<!-- note --><p>Please sign in.</p></body></html>"""
QUOTA = "You exceeded your current quota, please check your plan and billing details."
TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 1.4 with this model. Only the default (1) is supported."
)
TOKENS = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
RANGE = "Invalid 'temperature': decimal above maximum value. Expected a value <= 2"
SAME = {  # what these faults say, whoever asks
    "spent": (429, error(QUOTA, type="insufficient_quota", code="insufficient_quota")),
    "spent in 200": (200, without_choices(error("Insufficient credits", code=402))),
    "error in 200": (200, without_choices(error("The server is overloaded", type="server_error"))),
    "html": (200, PAGE),
    "gateway": (502, b"<html><head><title>502 Bad Gateway</title></head><body><hr>nginx</body></html>"),
    "nothing": (200, b""),
    "redirect": (307, b""),
    "too long": (400, error("maximum context length is 9 tokens", code="context_length_exceeded")),
    "role": (400, error("messages[0].role does not support 'system' with this model", param="messages[0].role")),
    "batch only": (400, error("The chatCompletion operation does not work", code="OperationNotSupported")),
    "range": (400, error(RANGE, param="temperature", code="decimal_above_max_value")),
    "filter, no message": (200, choice({}, "content_filter")),
    "filter, null message": (200, choice({"message": None}, "content_filter")),
    "refusal": (200, completion(None, refusal="I would rather not.")),
    "empty": (200, completion(None)),
    "length": (200, completion(None, "length")),
    "thought": (200, completion(None, reasoning_content="The user wants")),
    "thought only": (400, error("Could not finish the message because max_tokens or model output limit was reached.")),
    "parts, refused": (200, completion([{"type": "refusal", "refusal": "No."}])),
}
REFUSED = {  # parameters that a server may not take, and how it says so
    "no temperature": (400, error(TEMPERATURE, param="temperature", code="unsupported_value")),
    "no top_p": (400, error("invalid top_p: only 1 is allowed for this model")),
    "no max_tokens": (400, error(TOKENS, param="max_tokens", code="unsupported_parameter")),
    "extra": (422, b'{"detail": [{"loc": ["body", "top_p"], "msg": "Extra inputs are not permitted"}]}'),
    "both": (400, error("`temperature` and `top_p` cannot both be specified for this model.")),
}


def refusal(fault: str | None, body: dict[str, Any]) -> tuple[int, bytes] | None:
    """What a server says to parameters that it does not take, if they are there."""
    if fault == "reasoning":
        fault = next((f"no {name}" for name in ("temperature", "top_p", "max_tokens") if name in body), None)
    named = {"extra": ["top_p"], "both": ["temperature", "top_p"]}.get(fault, [str(fault).removeprefix("no ")])
    return REFUSED[fault] if fault in REFUSED and all(name in body for name in named) else None


class Server:
    def __init__(self, settings: dict[str, Any]):
        self.keys = settings.get("keys", [])
        self.delay = settings.get("delay", 0.0)
        self.rates = settings.get("rates", {})
        self.script = settings.get("script", [])
        self.headers = settings.get("headers", {})
        self.log = open(settings["log"], "a") if "log" in settings else None  # noqa: SIM115
        self.looks = settings.get("batches")
        self.calls = settings.get("calls", [])
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The requests of one connection, one after the other."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split()
                if not await self.answer(method, path, headers, content, reader, writer):
                    return

    def fault(self, path: str, key: str, prompt: str) -> str | None:
        azure = path.startswith("/openai/deployments/") and "/chat/completions?api-version=" in path
        if not azure and path != "/v1/chat/completions":
            return "404"
        if self.keys and key not in self.keys:
            return "401"
        return self.drawn(key, prompt)

    def drawn(self, key: str, prompt: str) -> str | None:
        if self.script:
            return self.script.pop(0)
        draw = random.random()
        for name, rate in self.rates.items():
            if name == "filter":
                if filtered(prompt, rate):
                    return "filter"
            elif name != "401" or key == self.keys[-1]:
                draw -= rate
                if draw < 0:
                    return name
        return None

    def note(self, **line: Any) -> None:
        if self.log:
            self.log.write(json.dumps(line) + "\n")
            self.log.flush()

    def result(self, fault: str | None, key: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Status and content of an answer to a chat."""
        prompt = body["messages"][-1]["content"]
        text = reply(prompt)
        if fault in ("400", "401", "402", "404", "429", "500"):
            return int(fault), error(f"no luck with the key {key}\nand {prompt}")  # keys leak like this
        if refused := refusal(fault, body):
            return refused
        if fault == "filter" and zlib.crc32(prompt.encode()) % 2:
            inner = {"code": "ResponsibleAIPolicyViolation"}
            return 400, error("filtered", code="content_filter", innererror=inner)
        if fault == "filter":
            return 200, completion("half an ans", "content_filter")
        if fault == "parts":
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
            return 200, completion([thought, {"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}])
        if fault == "no usage":
            return 200, json.dumps({"choices": json.loads(completion(text))["choices"]}).encode()
        return SAME.get(fault, (200, completion(text)))

    def called(
        self, call: str, path: str, key: str, headers: dict[str, str], content: bytes
    ) -> tuple[str | None, int, bytes]:
        """The fault of a call about files and batches, with its status and content."""
        fault = "401" if self.keys and key not in self.keys else self.calls.pop(0) if self.calls else None
        fault = "404" if self.looks is None else fault
        self.note(call=call, path=path, key=key, fault=fault)
        if str(fault).isdigit():
            return fault, int(fault), error(f"no luck with the key {key}")
        method, kind, *ids = call.replace("/", " ").split()
        if kind == "files" and method == "POST":
            boundary = headers["content-type"].partition("boundary=")[2].encode()
            part = next(part for part in content.split(b"--" + boundary) if b"filename=" in part)
            made = {"id": self.keep(part.partition(b"\r\n\r\n")[2]), "status": fault or "processed"}
        elif kind == "files" and len(ids) == 1:
            made = {"id": ids[0], "status": "processed"}
        elif kind == "files":
            return fault, 200, self.files[ids[0]]
        elif method == "POST":
            made = self.batch(json.loads(content), key, fault)
        elif ids:
            made = self.looked_at(self.batches[ids[0]])
        else:
            query = parse_qs(path.partition("?")[2])
            listed = [*self.batches.values()][::-1]
            after = [batch["id"] for batch in listed].index(query["after"][0]) + 1 if "after" in query else 0
            last = after + int(query["limit"][0])
            made = {"data": listed[after:last], "has_more": last < len(listed)}
        return fault, 200, json.dumps(made).encode()

    def keep(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def batch(self, body: dict[str, Any], key: str, fault: str | None) -> dict[str, Any]:
        """A new batch: what its lines get is settled, and told when it is over."""
        made = {"id": f"batch_{len(self.batches)}", "status": "validating", "created_at": int(time.time()), **body}
        self.batches[made["id"]] = made
        if fault in ("invalid", "full"):
            code = "token_limit_exceeded" if fault == "full" else "invalid_json_line"
            made["over"] = {"status": "failed", "errors": {"data": [{"code": code, "message": f"not so, {key}"}]}}
            return made
        lines: dict[str, list[bytes]] = {"output_file_id": [], "error_file_id": []}
        faults = set()
        for text in self.files[body["input_file_id"]].strip().split(b"\n"):
            line = json.loads(text)
            prompt = line["body"]["messages"][-1]["content"]
            fault = self.drawn(key, prompt)
            faults.add(fault)
            self.note(prompt=prompt, path=line["url"], key=key, fault=fault, body=line["body"], batch=made["id"])
            if fault == "no line":
                continue
            status, content = self.result(fault, key, line["body"])
            told = {"response": {"status_code": status, "body": json.loads(content)}, "error": None}
            if fault == "expired":
                told = {"response": None, "error": {"code": "batch_expired", "message": "This request expired."}}
            name = "output_file_id" if fault != "expired" and status == 200 else "error_file_id"
            lines[name].append(json.dumps({"id": "x", "custom_id": line["custom_id"], **told}).encode())
        random.shuffle(lines["output_file_id"])
        made["over"] = {name: self.keep(b"\n".join(found)) for name, found in lines.items() if found}
        made["over"]["status"] = "expired" if "expired" in faults else "completed"
        made["left"] = self.looks
        return made

    def looked_at(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["left"] = batch.get("left", 0) - 1
        batch |= batch["over"] if batch["left"] < 0 else {"status": "in_progress", "request_counts": {"completed": 1}}
        return batch

    async def answer(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        content: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; False if the connection is of no more use."""
        key = headers.get("api-key" if path.startswith("/openai/") else "authorization", "").removeprefix("Bearer ")
        what = path.partition("?")[0].removeprefix("/v1/").removeprefix("/openai/")
        if what.startswith(("files", "batches")):
            fault, status, content = self.called(f"{method} {what}", path, key, headers, content)
        else:
            body = json.loads(content)
            prompt = body["messages"][-1]["content"]
            fault = self.fault(path, key, prompt)
            self.note(prompt=prompt, path=path, key=key, fault=fault, body=body)
            status, content = self.result(fault, key, body)
        if fault in ("timeout", "lost"):
            await reader.read()  # until the client gives up
            return False
        if fault == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(50):
                writer.write(b"\n")
                await writer.drain()
                await asyncio.sleep(0.2)
            return False
        await asyncio.sleep(self.delay)
        length = len(content)
        if fault == "truncated":
            content = content[: length // 2]
            if random.random() < 0.5:  # in one half of the cases the header knows
                length //= 2
        more = {"Content-Type": "text/html" if content.startswith(b"<") else "application/json"}
        more |= {429: self.headers, 307: {"Location": "http://elsewhere.example/v1"}}.get(status, {})
        lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {length}", *(f"{n}: {v}" for n, v in more.items())]
        head = "\r\n".join([*lines, "", ""])
        writer.write(head.encode() + content)
        await writer.drain()
        return fault != "truncated"


async def main(settings: dict[str, Any]) -> None:
    server = await asyncio.start_server(Server(settings).serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(json.loads(sys.argv[1])))
