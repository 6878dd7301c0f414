"""A server that speaks the chat protocol of OpenAI and Azure, and fails on purpose.

    python tests/apis/fault_server.py '{"keys": ["k"], "delay": 0.02, "rates": {"429": 0.1}}'

It prints its port. Its one argument, in JSON, may hold:
    keys      the keys that it takes (default: any, or none)
    delay     seconds before an answer
    rates     of "429", "500", "timeout", "truncated", "401" (only for the last key): drawn for every request;
              and of "filter": which prompts are refused, half of them with status 400, half by finish_reason
    script    faults of the first requests instead, or null for an answer; also "400", "404", "too long", "tokens" (it
              knows no max_tokens), "refusal", "empty", "no usage", "error in 200", "drip" (white space for 10 seconds)
    headers   of a 429
    log       a file that gets a line for every request: its prompt, path, key, fault, parameters
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import zlib
from typing import Any


def reply(prompt: str) -> str:
    """The answer to `prompt`, and to no other."""
    return f"{zlib.crc32(prompt.encode()):08x}: {prompt.upper()}"


def filtered(prompt: str, rate: float) -> bool:
    return zlib.crc32(prompt.encode()) % 10_000 < rate * 10_000


def error(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "type": None, "param": None, "code": None, **more}}).encode()


def completion(content: str | None, finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **more}}
    return json.dumps(
        {"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    ).encode()


class Server:
    def __init__(self, settings: dict[str, Any]):
        self.keys = settings.get("keys", [])
        self.delay = settings.get("delay", 0.0)
        self.rates = settings.get("rates", {})
        self.script = settings.get("script", [])
        self.headers = settings.get("headers", {})
        self.log = open(settings["log"], "a") if "log" in settings else None  # noqa: SIM115

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The requests of one connection, one after the other."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                if not await self.answer(first.split()[1], headers, body, reader, writer):
                    return

    def fault(self, path: str, key: str, prompt: str) -> str | None:
        azure = path.startswith("/openai/deployments/") and "/chat/completions?api-version=" in path
        if not azure and path != "/v1/chat/completions":
            return "404"
        if self.keys and key not in self.keys:
            return "401"
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

    async def answer(
        self,
        path: str,
        headers: dict[str, str],
        body: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; False if the connection is of no more use."""
        key = headers.get("api-key" if path.startswith("/openai/") else "authorization", "").removeprefix("Bearer ")
        prompt = body["messages"][-1]["content"]
        fault = self.fault(path, key, prompt)
        if self.log:
            line = {"prompt": prompt, "path": path, "key": key, "fault": fault, "body": body}
            self.log.write(json.dumps(line) + "\n")
            self.log.flush()
        if fault == "timeout":
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
        status, content = 200, completion(reply(prompt))
        if fault in ("400", "401", "404", "429", "500"):
            status, content = int(fault), error(f"no luck with the key {key}\nand {prompt}")  # keys leak like this
        elif fault == "too long":
            status, content = 400, error("maximum context length is 9 tokens", code="context_length_exceeded")
        elif fault == "tokens" and "max_tokens" in body:
            text = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
            status, content = 400, error(text, param="max_tokens", code="unsupported_parameter")
        elif fault == "filter" and zlib.crc32(prompt.encode()) % 2:
            inner = {"code": "ResponsibleAIPolicyViolation"}
            status, content = 400, error("filtered", code="content_filter", innererror=inner)
        elif fault == "filter":
            content = completion("half an ans", "content_filter")
        elif fault == "refusal":
            content = completion(None, refusal="I would rather not.")
        elif fault == "empty":
            content = completion(None)
        elif fault == "no usage":
            content = json.dumps({"choices": json.loads(content)["choices"]}).encode()
        elif fault == "error in 200":
            content = error("overloaded")
        length = len(content)
        if fault == "truncated":
            content = content[: length // 2]
            if random.random() < 0.5:  # in one half of the cases the header knows
                length //= 2
        more = "".join(f"{name}: {value}\r\n" for name, value in (self.headers.items() if status == 429 else ()))
        head = f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
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
