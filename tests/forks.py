"""Commands in processes of their own which share one import of the heavy libraries.

A process that has imported them and done nothing else forks a child for each command. The child has its own arguments,
environment, folder and streams, and ends as the command's process would.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVER = """
import atexit, json, os, runpy, sys, traceback
import dp_accounting, opacus, pandas, peft, pyarrow.parquet, scipy.stats, sklearn.cluster, sklearn.decomposition
import sentence_transformers, torch, transformers
import apis.hf_api
torch.set_num_threads(1)

def child(order):
    for number, (path, how) in enumerate(zip(order["streams"], (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY))):
        os.dup2(os.open(path, how), number)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = order["argv"]
    code = 0
    try:
        if order["code"] is None:
            sys.path.insert(0, os.path.dirname(sys.argv[0]))
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            exec(order["code"], {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)

for line in sys.stdin:
    order = json.loads(line)
    if "pid" in order:
        pid, status = os.waitpid(order["pid"], order["flags"])
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        continue
    sys.stdout.flush()
    started = os.fork()
    if not started:
        if torch := sys.modules.get("torch"):  # its pool of threads is made anew after a fork, by the first who asks
            torch.set_num_threads(torch.get_num_threads())
        child(order)
    print(started, flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", SERVER], stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=env)


def _ask(order: dict[str, object]) -> int | None:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


class Forked:
    """A process: the script `argv[0]` with its arguments, or `code`. Streams are paths of files or FIFOs."""

    def __init__(
        self,
        argv: Sequence[object] = ("-c",),
        *,
        code: str | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | str = ".",
        streams: Sequence[Path | str] = (os.devnull, os.devnull, os.devnull),
    ) -> None:
        words, env = list(map(str, argv)), dict(os.environ if env is None else env)
        places = {"cwd": str(Path(cwd).resolve()), "streams": list(map(str, streams))}
        self.pid = _ask({"argv": words, "code": code, "env": env, **places})
        self.returncode: int | None = None

    def poll(self, flags: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            self.returncode = _ask({"pid": self.pid, "flags": flags})
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def run(argv: Sequence[object] = ("-c",), **options: object) -> subprocess.CompletedProcess[str]:
    """As subprocess.run does, with what it said."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        out.touch(), err.touch()
        code = Forked(argv, streams=(os.devnull, out, err), **options).wait()
        return subprocess.CompletedProcess(argv, code, out.read_text(), err.read_text())
