"""How much of a server's capacity the client uses: 64 requests in flight, one second an answer, 64 answers a second.

python benchmarks/remote.py [--prompts 1920 --num_procs 64]         about two minutes
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from figures import record

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs without an installation

SECONDS = 1.0  # that the server takes for an answer


def ours(url: str, texts: list[str], width: int) -> list[str | None]:
    from apis.api import Prompt
    from apis.azure_api import AzureAPI
    from apis.endpoints import Endpoint
    from apis.journal import Journal

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "requests.jsonl")
        api = AzureAPI("m", endpoints=[Endpoint(url, "key")], num_procs=width, log=log, progress=False)
        return Journal(api, Path(folder)).generate([Prompt(text) for text in texts], 0)


def gathered(url: str, texts: list[str], width: int) -> list[str | None]:
    import openai

    async def main() -> list[str | None]:
        gate = asyncio.Semaphore(width)
        async with openai.AsyncOpenAI(base_url=url, api_key="key") as client:

            async def ask(text: str) -> str | None:
                async with gate:
                    messages = [{"role": "user", "content": text}]
                    answer = await client.chat.completions.create(model="m", messages=messages, max_tokens=64)
                    return answer.choices[0].message.content

            return await asyncio.gather(*map(ask, texts))

    return asyncio.run(main())


def threaded(url: str, texts: list[str], width: int) -> list[str | None]:
    import openai

    client = openai.OpenAI(base_url=url, api_key="key")

    def ask(text: str) -> str | None:
        messages = [{"role": "user", "content": text}]
        answer = client.chat.completions.create(model="m", messages=messages, max_tokens=64)
        return answer.choices[0].message.content

    with ThreadPoolExecutor(width) as pool:
        return list(pool.map(ask, texts))


CLIENTS: dict[str, Callable[[str, list[str], int], list[str | None]]] = {
    "AzureAPI behind a Journal": ours,
    "AsyncOpenAI, its own retries, semaphore and gather": gathered,
    "OpenAI in a pool of threads": threaded,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1920)
    parser.add_argument("--num_procs", type=int, default=64, help="requests in flight")
    args = parser.parse_args()

    from tests.apis.fault_server import reply

    os.environ["NO_PROXY"] = "127.0.0.1"
    command = [sys.executable, ROOT / "tests/apis/fault_server.py", json.dumps({"delay": SECONDS})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            texts = [f"Rewrite in other words: review number {number}" for number in range(args.prompts)]
            print("| client | requests/s | of the capacity | processor (s) |\n|---|---:|---:|---:|")
            rates = []
            for name, ask in CLIENTS.items():
                ask(url, texts[:1], 1)  # imports
                start, cpu = time.perf_counter(), time.process_time()
                answers = ask(url, texts, args.num_procs)
                rate, cpu = args.prompts / (time.perf_counter() - start), time.process_time() - cpu
                assert answers == [reply(text) for text in texts]
                rates.append(rate)
                print(f"| {name} | {rate:.1f} | {rate * SECONDS / args.num_procs:.1%} | {cpu:.1f} |", flush=True)
            record("answers of a server", rates[0], max(rates[1:]), "requests/s", "the best of openai's clients")
        finally:
            server.kill()


if __name__ == "__main__":
    main()
