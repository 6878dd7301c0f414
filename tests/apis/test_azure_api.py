"""The client against a server that fails on purpose, in a process of its own."""

import email.utils
import json
import random
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from apis import azure_api, responses
from apis.api import Prompt
from apis.azure_api import AzureAPI
from apis.endpoints import AZURE_VERSION, Endpoint, endpoints
from apis.journal import Journal, _key
from dpsda.errors import InputError
from tests.apis.fault_server import filtered, reply

ROOT = Path(__file__).resolve().parents[2]
KEY, OTHER = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
PROMPTS = [Prompt(f"prompt {number}", max_new_tokens=5) for number in range(60)]
ANSWERS = [reply(prompt.text) for prompt in PROMPTS]
VARIABLES = ["MODEL_CONFIG", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_VERSION"]
VARIABLES += ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_DEPLOYMENT"]
PROXIES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def quick(monkeypatch):
    """No time is lost between two tries."""
    monkeypatch.setattr(azure_api, "BACKOFF", lambda state: 0.001)


@dataclass
class Fault:
    url: str
    log: Path

    @property
    def requests(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def serve(tmp_path):
    """Start a server with these settings."""
    started = []

    def serve(**settings) -> Fault:
        log = tmp_path / f"server{len(started)}.jsonl"
        log.touch()
        command = [sys.executable, ROOT / "tests/apis/fault_server.py", json.dumps(settings | {"log": str(log)})]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return Fault(f"http://127.0.0.1:{int(started[-1].stdout.readline())}", log)

    yield serve
    for process in started:
        process.kill()
        process.communicate()


def client(*servers: Fault, keys=(KEY,), model="gpt-4o-mini", **options) -> AzureAPI:
    ends = [Endpoint(f"{server.url}/v1", key) for server in servers for key in keys]
    return AzureAPI(model, endpoints=ends, **{"num_procs": 8, "progress": False, **options})


CHILD = """
import json, sys
from pathlib import Path
from apis.api import Prompt
from apis.azure_api import AzureAPI
from apis.endpoints import Endpoint
from apis.journal import Journal
url, keys, texts, folder = json.loads(sys.argv[1])
ends = [Endpoint(url + "/v1", key) for key in keys]
log = Path(folder, "requests.jsonl")
api = AzureAPI("gpt-4o-mini", endpoints=ends, num_procs=64, timeout=2, log=log, progress=False)
answers = Journal(api, Path(folder)).generate([Prompt(text) for text in texts], 7)
Path(folder, "answers.json").write_text(json.dumps([answers, api.spending.requests]))
"""


def test_faults_and_kills_lose_and_repeat_nothing(serve, tmp_path):
    rates = {"429": 0.1, "500": 0.05, "timeout": 0.02, "truncated": 0.01, "401": 0.005, "filter": 0.02}
    server = serve(keys=[KEY, OTHER], delay=0.02, rates=rates, headers={"Retry-After": "0.05"})
    texts = [f"prompt {number}" for number in range(2000)]
    place = {_key(number, Prompt(text)): text for number, text in enumerate(texts)}
    journal = tmp_path / "7.jsonl"

    def stored() -> list[bytes]:
        return journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []

    arguments = json.dumps([server.url, [KEY, OTHER], texts, str(tmp_path)])
    command = [sys.executable, "-c", CHILD, arguments]
    snapshots = []
    kills = [random.randrange(start, start + 400) for start in (100, 700, 1300)]
    for kill in kills:
        child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
        while child.poll() is None and len(stored()) < kill:
            time.sleep(0.02)
        assert child.poll() is None, (kills, child.stderr.read())
        child.send_signal(signal.SIGKILL)
        child.communicate()
        kept, before = {place[json.loads(line)["key"]] for line in stored()}, server.requests
        assert kill <= len(kept) < 2000, kills
        assert len({request["prompt"] for request in before} - kept) <= 64, kills  # these are asked again
        snapshots.append((kept, len(before)))
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, done.stderr

    answers, counted = json.loads((tmp_path / "answers.json").read_text())
    refused = {text for text in texts if filtered(text, rates["filter"])}
    assert 20 < len(refused) < 60
    assert answers == [None if text in refused else reply(text) for text in texts]
    requests = server.requests
    for kept, mark in snapshots:
        assert not kept & {request["prompt"] for request in requests[mark:]}, kills
    assert {"429", "500", "timeout", "truncated", "filter", "401"} <= {request["fault"] for request in requests}
    assert len(requests) - 3 * 64 <= counted <= len(requests)  # a kill takes the lines of what was in flight
    text = (tmp_path / "requests.jsonl").read_text()
    assert KEY not in text and OTHER not in text and "prompt 1" not in text


def test_openai_protocol(serve):
    server = serve(keys=[KEY])
    prompt = Prompt("now", "be brief", (("ask", "told"),), max_new_tokens=7)
    assert client(server, temperature=1.4, top_p=0.9).generate([prompt], 0) == [reply("now")]
    [request] = server.requests
    assert (request["path"], request["key"]) == ("/v1/chat/completions", KEY)
    turns = [("system", "be brief"), ("user", "ask"), ("assistant", "told"), ("user", "now")]
    assert request["body"] == {
        "model": "gpt-4o-mini",
        "messages": [{"role": role, "content": content} for role, content in turns],
        "temperature": 1.4,
        "top_p": 0.9,
        "max_tokens": 7,
    }


def test_azure_protocol(serve, monkeypatch):
    server = serve(keys=[KEY])
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url + "/")
    monkeypatch.setenv("AZURE_OPENAI_DEPLOYMENT", "mine")
    api = AzureAPI("gpt-4o-mini", endpoints=endpoints("gpt-4o-mini"), progress=False)
    assert api.generate(PROMPTS[:2], 0) == ANSWERS[:2]
    for request in server.requests:
        assert request["path"] == f"/openai/deployments/mine/chat/completions?api-version={AZURE_VERSION}"
        assert request["key"] == KEY


def test_endpoints_share_the_load_and_calls_repeat(serve):
    server = serve(keys=[KEY, OTHER], delay=0.01)
    api = client(server, keys=(KEY, OTHER))
    results = []
    for _ in range(2):  # in a thread, and more than once
        thread = threading.Thread(target=lambda: results.append(api.generate(PROMPTS, 0)))
        thread.start()
        thread.join()
    assert results == [ANSWERS, ANSWERS]
    shares = Counter(request["key"] for request in server.requests)
    assert min(shares[KEY], shares[OTHER]) >= 50  # of 120
    assert (api.spending.requests, api.spending.prompt_tokens, api.spending.completion_tokens) == (120, 1200, 600)
    assert api.spending.cost == pytest.approx((1200 * 0.15 + 600 * 0.60) / 1e6)
    assert client(server, model="unheard-of").spending.cost is None


def test_the_least_busy_endpoint_is_asked(serve):
    slow, fast = serve(delay=0.3), serve(delay=0.02)
    assert client(slow, fast).generate(PROMPTS, 0) == ANSWERS
    assert 4 <= len(slow.requests) < 20


def test_answers_are_handed_over_as_they_come(serve):
    server = serve(delay=0.01, rates={"filter": 0.3})
    heard = []
    api = client(server, num_procs=4)

    def hear(number, answer):
        assert api.spending.requests <= len(heard) + 4  # nobody takes a prompt before the last answer is stored
        heard.append((number, answer))

    answers = api.generate(PROMPTS, 0, hear)
    assert sorted(heard) == list(enumerate(answers))
    assert answers == [None if filtered(p.text, 0.3) else reply(p.text) for p in PROMPTS]
    assert 0 < answers.count(None) < len(PROMPTS)


def test_an_error_of_the_listener_comes_through(serve):
    def full(number, answer):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        client(serve()).generate(PROMPTS, 0, full)


def test_refusals_and_odd_bodies(serve, quick):
    server = serve(script=["refusal", "empty", "error in 200", "no usage"])
    api = client(server, num_procs=1)
    prompts = [*PROMPTS[:3], Prompt("half \ud800 letter")]
    assert api.generate(prompts, 0) == [None, None, ANSWERS[2], reply("half ? letter")]
    assert api.retries == 1 and api.spending.requests == 5


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        ("filter, no message", None),
        ("filter, null message", None),
        ("parts, refused", None),
        ("empty", None),
        ("length", ""),
        ("thought", ""),
        ("thought only", ""),
        ("parts", ANSWERS[0]),
    ],
)
def test_answers_that_are_no_text(serve, fault, answer):
    """None for what was refused, "" for nothing; neither is a failure."""
    server = serve(script=[fault])
    assert client(server).generate(PROMPTS[:1], 0) == [answer]
    assert len(server.requests) == 1


def test_a_check_is_one_short_request(serve, tmp_path, capsys):
    server, log = serve(script=[None, "refusal", "400", "spent"]), tmp_path / "requests.jsonl"
    api = client(server, log=log, temperature=1.4, max_requests=4, progress=True)
    prompt = Prompt("now", "be brief", max_new_tokens=500)
    Journal(api, tmp_path).check(prompt)
    api.check(prompt)
    for message in ("refused a request with 400", "no endpoint is left"):
        with pytest.raises(InputError, match=message) as caught:
            api.check(prompt)
        assert "answers" not in str(caught.value)
    with pytest.raises(InputError, match="budget of --max_requests 4"):
        client(server, log=log, max_requests=4).check(prompt)
    bodies = [request["body"] for request in server.requests]
    assert len(bodies) == api.spending.requests == len(log.read_text().splitlines()) == 4
    assert all((body["max_tokens"], body["temperature"]) == (16, 1.4) for body in bodies)
    assert bodies[0]["messages"][0] == {"role": "system", "content": "be brief"}
    assert list(tmp_path.glob("[0-9].jsonl")) == [] and capsys.readouterr().err == ""


def test_a_key_that_is_refused_is_left_out(serve, capsys):
    server = serve(keys=[KEY])
    api = client(server, keys=(OTHER, KEY))
    assert api.generate(PROMPTS, 0) == ANSWERS
    warning = capsys.readouterr().err.strip()
    start = (
        f"warning: endpoint 1 ({server.url[7:]}) answered 401, is left out from now on: no luck with the key [key] and "
    )
    assert re.fullmatch(re.escape(start) + r"prompt \d", warning)
    assert Counter(request["fault"] for request in server.requests)["401"] <= 8


@pytest.mark.parametrize(("keys", "path", "status"), [((OTHER, OTHER), "/v1", 401), ((KEY,), "/v2", 404)])
def test_no_endpoint_left(serve, keys, path, status):
    server = serve(keys=[KEY])
    ends = [Endpoint(server.url + path, key) for key in keys]
    api = AzureAPI("m", endpoints=ends, num_procs=4, progress=False)
    with pytest.raises(
        InputError, match=rf"no endpoint is left \(endpoint 1 .*{status}: no luck .*\); check the key"
    ) as caught:
        api.generate(PROMPTS, 0)
    assert "\n" not in str(caught.value)
    assert len(server.requests) <= 4 * len(keys)


def test_a_dead_endpoint_beside_a_good_one(serve, quick):
    dead, good = serve(script=["500"] * 200), serve(delay=0.02)  # the dead one is always the least busy
    assert client(dead, good).generate(PROMPTS, 0) == ANSWERS


def test_an_endpoint_that_asks_to_wait_holds_nobody_up(serve):
    """Where another one is open, no prompt waits out a Retry-After, and none is sent against it."""
    throttled, good = serve(script=["429"] * 200, headers={"Retry-After": "30"}), serve(delay=0.02)
    start = time.monotonic()
    assert client(throttled, good).generate(PROMPTS, 0) == ANSWERS
    assert time.monotonic() - start < 15 and len(throttled.requests) <= 8


def test_a_server_that_only_keeps_the_line_open_is_given_up(serve):
    server = serve(script=["drip"])
    start = time.monotonic()
    assert client(server, timeout=1).generate(PROMPTS[:1], 0) == ANSWERS[:1]
    assert 1 <= time.monotonic() - start < 4 and [request["fault"] for request in server.requests] == ["drip", None]


def test_a_bad_request_is_not_sent_again(serve):
    server = serve(script=["400"], delay=0.3)
    heard = {}
    with pytest.raises(
        InputError, match=r"endpoint 1 .* refused a request with 400: no luck .*, 3 answers are kept"
    ) as e:
        client(server, num_procs=4).generate(PROMPTS, 0, heard.__setitem__)
    assert "\n" not in str(e.value) and len(str(e.value)) < 500
    assert len(server.requests) == 4
    assert len(heard) == 3 and all(ANSWERS[number] == answer for number, answer in heard.items())


def test_a_request_that_is_too_long_is_refused_alone(serve, capsys):
    """The others go on, and the user hears of it once."""
    server = serve(script=["too long", "too long"])
    answers = client(server, num_procs=1).generate(PROMPTS, 0)
    assert answers == [None, None, *ANSWERS[2:]]
    assert capsys.readouterr().err.count("too long") == 1


def test_giving_up_keeps_what_was_answered(serve, quick, tmp_path):
    server = serve(script=[None] * 20, rates={"500": 1.0})
    api = Journal(client(server, num_procs=4), tmp_path)
    with pytest.raises(
        InputError, match=r"10 tries of one request failed, the last with status 500.* 20 answers are kept"
    ):
        api.generate(PROMPTS, 0)
    tried = Counter(request["prompt"] for request in server.requests if request["fault"])
    assert max(tried.values()) == 10 and len(tried) <= 4
    api.api = client(serve())
    assert api.generate(PROMPTS, 0) == ANSWERS
    assert api.api.spending.requests == 40


REASONS = [
    ("429", "status 429", "answered 429, is asked again: no luck with the key [key] and prompt 0"),
    ("500", "status 500", "answered 500, is asked again: no luck with the key [key] and prompt 0"),
    ("error in 200", "status 200", "answered 200 with no answer in it, is asked again: The server is overloaded"),
    (
        "html",
        "status 200",
        "answered 200 with no answer in it, is asked again: no JSON (text/html): Sign in Welcome & hello Please sign "
        "in",
    ),
    ("gateway", "status 502", "answered 502, is asked again: no JSON (text/html): 502 Bad Gateway nginx"),
    ("nothing", "status 200", "answered 200 with no answer in it, is asked again"),
    ("timeout", "TimeoutError", "could not be asked (TimeoutError), is asked again: nothing within 0.2 seconds"),
]


@pytest.mark.parametrize(("fault", "kind", "warning"), REASONS)
def test_the_reason_of_a_failure_is_said(serve, quick, capsys, fault, kind, warning):
    """Once when it happens first, and again when it was the last."""
    server = serve(rates={fault: 1.0})
    with pytest.raises(InputError) as caught:
        client(server, timeout=0.2 if fault == "timeout" else 20).generate(PROMPTS[:1], 0)
    name = f"endpoint 1 ({server.url[7:]})"
    assert capsys.readouterr().err == f"warning: {name} {warning}\n"
    _, mark, words = warning.partition("again: ")
    last = f"{kind} at {name}" + (f": {words}" if mark else "")
    assert str(caught.value) == f"10 tries of one request failed, the last with {last}; the same command continues"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("spent", "answered 429: You exceeded your current quota, please check your plan and billing details"),
        ("spent in 200", "answered 402: Insufficient credits"),
        ("402", "answered 402: no luck with the key [key] and prompt 2"),
    ],
)
def test_what_never_passes_ends_the_run_at_once(serve, capsys, fault, reason):
    server = serve(script=[None] * 20, rates={fault: 1.0})
    heard = {}
    api = client(server, num_procs=4)
    with pytest.raises(InputError) as caught:
        api.generate(PROMPTS, 0, heard.__setitem__)
    line = re.sub(r"prompt \d+", "prompt 2", str(caught.value))
    assert line == (
        f"no endpoint is left (endpoint 1 ({server.url[7:]}) {reason}); when that is settled the same command "
        "continues, 20 answers are kept"
    )
    assert capsys.readouterr().err == ""  # the line above says it
    assert api.retries == 0 and len(server.requests) <= 24
    assert len(heard) == 20 and all(ANSWERS[number] == answer for number, answer in heard.items())


def test_no_redirect_is_followed(serve):
    """It could lead prompts and key to another machine."""
    server = serve(rates={"redirect": 1.0})
    with pytest.raises(InputError, match=r"answered 307: it redirects to http://elsewhere.example/v1\); check the key"):
        client(server, num_procs=1).generate(PROMPTS, 0)
    assert len(server.requests) == 1


def test_an_endpoint_that_never_answers_again_is_left_out(serve, capsys):
    spent, good = serve(rates={"spent": 1.0}), serve(delay=0.02)
    assert client(spent, good).generate(PROMPTS, 0) == ANSWERS
    assert len(spent.requests) <= 8
    warning = f"warning: endpoint 1 ({spent.url[7:]}) answered 429, is left out from now on: You exceeded your current"
    assert capsys.readouterr().err.startswith(warning)


def test_the_end_has_the_reason_of_each_endpoint(serve):
    spent, shut = serve(rates={"spent": 1.0}), serve(keys=[OTHER])
    pattern = r"^no endpoint is left \(endpoint 1 .* answered 429: You .* details; endpoint 2 .* answered 401: no luck"
    with pytest.raises(InputError, match=pattern):
        client(spent, shut, num_procs=1).generate(PROMPTS, 0)


def clock(seconds: float, form: str) -> set[str]:
    """The time in so many seconds, now or a moment ago, as a clock shows it that is rounded up to the minute."""
    return {time.strftime(form, time.localtime(time.time() + seconds + more)) for more in (0, 30, 60)}


def test_a_wait_that_is_too_long_ends_the_run(serve):
    server = serve(script=[None] * 20, rates={"429": 1.0}, headers={"Retry-After": "86400"})
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        client(server, num_procs=1).generate(PROMPTS, 0)
    assert time.monotonic() - start < 10 and len(server.requests) == 21
    pattern = (
        rf"no endpoint is left \(endpoint 1 \({server.url[7:]}\) answered 429 and asks to wait until (.*?): no luck .*"
        r"\); the same command continues then, 20 answers are kept"
    )
    found = re.fullmatch(pattern, str(caught.value))
    assert found and found[1] in clock(86400, "%Y-%m-%d %H:%M"), caught.value


def test_an_endpoint_that_asks_to_wait_too_long_is_left_out(serve, capsys):
    throttled, good = serve(rates={"429": 1.0}, headers={"Retry-After": "86400"}), serve(delay=0.02)
    assert client(throttled, good).generate(PROMPTS, 0) == ANSWERS
    assert len(throttled.requests) <= 8
    assert re.search(r"asks to wait until [-\d]* [\d:]*, is left out from now on: no luck", capsys.readouterr().err)


def test_a_long_wait_says_until_when(serve, capsys):
    server = serve(script=["429", "400"], headers={"Retry-After": "1800"}, delay=0.1)
    with pytest.raises(InputError, match="400"):
        client(server, num_procs=2).generate(PROMPTS, 0)
    err = capsys.readouterr().err
    found = re.fullmatch(
        rf"warning: endpoint 1 \({server.url[7:]}\) answered 429 and asks to wait until (.*?): no luck .*\n", err
    )
    assert found and found[1].split()[-1] in clock(1800, "%H:%M"), err


def test_the_first_endpoint_to_open_is_waited_for(serve):
    """Not the one that asked last."""
    failing, throttled = serve(script=["500"]), serve(rates={"429": 1.0}, headers={"Retry-After": "3000"})
    start = time.monotonic()
    assert client(failing, throttled, num_procs=1).generate(PROMPTS[:1], 0) == ANSWERS[:1]
    assert time.monotonic() - start < 10 and len(throttled.requests) == 1


def test_nobody_there_costs_nothing(quick):
    api = client(Fault("http://127.0.0.1:9", Path()), num_procs=1)  # a port that nobody listens on
    with pytest.raises(InputError, match=r"10 tries .* ConnectError at endpoint 1 \(127.0.0.1:9\): .*connect"):
        api.generate(PROMPTS, 0)
    assert (api.spending.requests, api.spending.cost) == (10, 0)


def test_giving_up_does_not_wait_for_others(serve, monkeypatch):
    """A worker that waits for another try stops waiting when the call is over."""
    server = serve(script=["429", "400"], headers={"Retry-After": "50"}, delay=0.1)
    start = time.monotonic()
    with pytest.raises(InputError, match="400"):
        client(server, num_procs=2).generate(PROMPTS, 0)
    assert time.monotonic() - start < 20 and len(server.requests) == 2


@pytest.mark.parametrize("headers", [{"Retry-After": "0.9"}, {"retry-after-ms": "900", "Retry-After": "0"}])
def test_retry_after_is_honoured(serve, headers):
    server = serve(script=["429"], headers=headers)
    start = time.monotonic()
    assert client(server).generate(PROMPTS[:1], 0) == ANSWERS[:1]
    assert time.monotonic() - start >= 0.9  # the first wait of its own is at most 0.5


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        (1000, 990, 1000),  # a date so many seconds ahead
        (-1000, 0, 0),
        ("-3", 0, 0),
        ("86400", 86400, 86400),
        ("1e30", 1e9, 1e9),
        ("nan", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
    ],
)
def test_retry_after_values(value, least, most):
    if isinstance(value, int):
        value = email.utils.formatdate(time.time() + value, usegmt=True)
    for more in ({}, {"retry-after-ms": "soon"}):
        headers = azure_api.httpx2.Headers({"Retry-After": value, **more})
        assert least <= responses.retry_after(headers) <= most


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        ("no temperature", {"top_p", "max_tokens"}),
        ("no top_p", {"temperature", "max_tokens"}),
        ("extra", {"temperature", "max_tokens"}),
        ("both", {"temperature", "max_tokens"}),  # top_p is 1 anyway
        ("no max_tokens", {"temperature", "top_p", "max_completion_tokens"}),
        ("reasoning", {"max_completion_tokens"}),
    ],
)
def test_a_parameter_that_a_server_does_not_take_is_left_out(serve, capsys, fault, left):
    server = serve(rates={fault: 1.0})
    api = client(server, temperature=1.4)
    assert api.generate(PROMPTS, 0) == ANSWERS
    assert api.generate(PROMPTS, 0) == ANSWERS and api.retries == 0
    bodies = [request["body"] for request in server.requests]
    answered = [body for body in bodies if body.keys() == {"model", "messages"} | left]
    lost = {"temperature", "top_p", "max_tokens"} - left
    assert len(answered) == 2 * len(PROMPTS)
    assert 1 <= len(bodies) - len(answered) <= 8 * len(lost)  # those in flight when the first of them is refused
    warnings = capsys.readouterr().err.splitlines()
    assert {re.search(r"does not take (\w+), ", line)[1] for line in warnings} == lost and len(warnings) == len(lost)
    assert all(" from now on: " in line for line in warnings)


def test_a_parameter_is_left_out_for_its_endpoint_alone(serve):
    picky, other = serve(rates={"no temperature": 1.0}), serve()
    assert client(picky, other, temperature=1.4, num_procs=2).generate(PROMPTS, 0) == ANSWERS
    assert {request["body"].get("temperature") for request in other.requests} == {1.4}


@pytest.mark.parametrize("fault", ["400", "role", "range"])
def test_a_request_that_is_refused_for_good_promises_nothing(serve, fault):
    server = serve(rates={fault: 1.0})
    with pytest.raises(
        InputError, match=r"refused a request with 400: .*; it would refuse the same request again$"
    ) as e:
        client(server, temperature=3.0, num_procs=1).generate(PROMPTS, 0)
    assert "continues" not in str(e.value) and len(server.requests) == 1


def test_budget_of_requests(serve, quick, tmp_path):
    server = serve(rates={"500": 0.2})
    log = tmp_path / "state" / "requests.jsonl"

    def ask(most):
        api = Journal(client(server, max_requests=most, log=log), tmp_path)
        return api.generate(PROMPTS, 0)

    for most, before in ((20, 0), (20, 20), (45, 20)):
        assert len(server.requests) == before
        with pytest.raises(
            InputError, match=rf"^the budget of --max_requests {most} is used up: {most} requests, \$0.00"
        ):
            ask(most)
        assert len(server.requests) == most
        log.write_text(log.read_text() + '{"time": "20')  # what a kill may leave
    assert ask(None) == ANSWERS
    assert len(log.read_text().splitlines()) == len(server.requests)


def test_budget_in_dollars(serve, quick, tmp_path):
    server = serve(script=["429", "timeout", "no usage", "500"])
    prices, log = tmp_path / "prices.yaml", tmp_path / "requests.jsonl"
    prices.write_text("gpt-4o-mini: {input: 1000, output: 2000}")
    options = {"prices": prices, "log": log, "num_procs": 4, "timeout": 1.0}
    estimate = 0.001 * (len("prompt 1") // 2 + 8 + 2 * 5)
    with pytest.raises(InputError, match=r"^the budget of --max_cost 0.5 is used up: .* requests, \$0.4\d; raise it"):
        client(server, max_cost=0.5, **options).generate(PROMPTS, 0)
    api = client(server, max_cost=0.5, **options)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    answered = [line["status"] for line in lines].count(200) - 1
    assert {line["status"] for line in lines} == {200, 429, 500, "TimeoutError"}
    assert api.spending.cost == pytest.approx(
        2 * estimate + 0.02 * answered
    )  # a lost answer may be billed, an error is not
    assert 0.5 - 4 * (estimate + 0.001) <= api.spending.cost <= 0.5
    assert api.spending.requests == len(server.requests) == len(lines)
    with pytest.raises(InputError, match="max_cost"):
        client(server, max_cost=api.spending.cost, **options).generate(PROMPTS, 0)
    assert len(server.requests) == len(lines)


def test_a_request_that_a_filter_refused_may_be_billed(serve, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("gpt-4o-mini: {input: 0, output: 1000}")
    api = client(serve(script=["too long"]), prices=prices, max_cost=1)
    assert api.generate(PROMPTS[:1], 0) == [None] and api.spending.cost == pytest.approx(5 * 0.001)


def test_prices(tmp_path):
    with pytest.raises(InputError, match=r"prices.yaml has no price of 'unheard-of'"):
        AzureAPI("unheard-of", endpoints=[], max_cost=1.0)
    for text in ("gpt-4o: 3", "gpt-4o: {input: 1}", "[", "gpt-4o: {input: .nan, output: 1}"):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(InputError, match=r"p\.yaml"):
            AzureAPI("gpt-4o", endpoints=[], prices=tmp_path / "p.yaml")


@pytest.mark.parametrize("fault", ["400", "401", "500", "timeout", None])
def test_keys_show_nowhere(serve, quick, fault, tmp_path, capfd, caplog):
    caplog.set_level("DEBUG")
    server = serve(rates={fault: 1.0} if fault else {}, keys=[KEY])
    log = tmp_path / "requests.jsonl"
    api = client(server, log=log, timeout=0.2, num_procs=2, progress=True)
    shown = [repr(api), repr(vars(api))]
    try:
        api.generate(PROMPTS[:2], 0)
    except InputError as error:
        shown += traceback.format_exception(error)
        assert (fault is not None) and ("[key]" in str(error)) == (fault != "timeout")
    else:
        assert fault is None
    shown += [*capfd.readouterr(), log.read_text(), repr(vars(api))]
    assert any(server.url[7:] in text for text in shown)
    assert KEY in server.log.read_text() and not any(KEY in text for text in shown)
    assert not any(record.name.startswith(("openai", "http")) for record in caplog.records)


def test_endpoints_of_the_environment(monkeypatch):
    with pytest.raises(InputError, match="OPENAI_API_KEY, or AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT"):
        endpoints("m")
    assert endpoints("m", "http://box:8000/v1") == [Endpoint("http://box:8000/v1", "")]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert endpoints("m") == [Endpoint("https://api.openai.com/v1", KEY)]
    monkeypatch.setenv("OPENAI_BASE_URL", "https://other/v1")
    assert endpoints("m") == [Endpoint("https://other/v1", KEY)]
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", OTHER)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "http://x.example")
    with pytest.raises(InputError, match="AZURE_OPENAI_ENDPOINT is plain http to another machine"):
        endpoints("m")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    monkeypatch.setenv("OPENAI_API_VERSION", "2099-01-01")
    assert endpoints("m") == [Endpoint("https://x.openai.azure.com", OTHER, "m", "2099-01-01")]
    for url, key in (
        ("https://box/v1", KEY),
        ("http://localhost:8000/v1", KEY),
        ("http://box:8000/v1", ""),  # everybody on the way could read it
    ):
        assert endpoints("m", url) == [Endpoint(url, key)]


@pytest.fixture
def proxy():
    """A proxy that opens no tunnel, and everything that it was sent."""
    seen = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            head = b""
            while (line := self.rfile.readline()).strip():
                head += line
            seen.append(head.decode("latin-1"))
            self.wfile.write(b"HTTP/1.1 503 No tunnel\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:secret@127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


def test_this_machine_is_asked_directly(serve, proxy, monkeypatch):
    server = serve(keys=[KEY])
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy[0])
    port = server.url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost"):
        assert client(Fault(f"http://{host}:{port}", server.log)).generate(PROMPTS[:2], 0) == ANSWERS[:2]
    assert proxy[1] == []


def test_a_proxy_sees_tunnels_alone(quick, proxy, monkeypatch):
    """Over plain http it could read prompts and key, so it is not asked."""
    monkeypatch.setattr(azure_api, "TRIES", 2)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy[0])
    with pytest.raises(InputError, match=r"ProxyError at endpoint 1 \(model.invalid\): .*503 No tunnel"):
        client(Fault("https://model.invalid", Path())).generate(PROMPTS[:1], 0)
    assert len(proxy[1]) == 2
    for head in proxy[1]:
        assert head.startswith("CONNECT model.invalid:443 ") and "Proxy-Authorization: Basic " in head
        assert "authorization: bearer" not in head.lower() and KEY not in head
    for url, spared in (("http://model.invalid", ""), ("https://model.invalid", "other,.invalid")):
        monkeypatch.setenv("no_proxy", spared)
        with pytest.raises(InputError, match="ConnectError at endpoint 1"):
            client(Fault(url, Path())).generate(PROMPTS[:1], 0)
    assert len(proxy[1]) == 2


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("", "https://a.example.com/v1", False),
        ("*", "https://a.example.com/v1", True),
        ("example.com", "https://a.example.com/v1", True),
        (".example.com, other", "https://A.example.com/v1", True),
        ("*.example.com", "https://a.example.com/v1", True),
        ("https://a.example.com", "https://a.example.com/v1", True),
        ("ample.com", "https://a.example.com/v1", False),
        ("a.example.com:8443", "https://a.example.com:8443/v1", True),
        ("a.example.com:8443", "https://a.example.com/v1", False),
        ("10.0.0.0/8", "https://10.1.2.3/v1", True),
        ("10.0.0.0/8", "https://11.1.2.3/v1", False),
        ("10.1.2.3", "https://10.1.2.3/v1", True),
        ("[2001:db8::1]", "https://[2001:db8::1]/v1", True),
        ("", "https://127.0.0.2/v1", True),
        ("", "https://[::1]:8000/v1", True),
        ("", "https://box.localhost/v1", True),
        ("", "https://localhost.example/v1", False),
        ("", "http://a.example.com/v1", True),
    ],
)
def test_who_is_asked_through_a_proxy(monkeypatch, no_proxy, url, direct):
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("all_proxy", "socks5://proxy.example")  # not for https
    monkeypatch.setenv("no_proxy", no_proxy)
    proxy = Endpoint(url, KEY).proxy()
    assert proxy is None if direct else str(proxy.url) == "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("variable", "address", "message"),
    [
        ("all_proxy", "socks5://me:secret@host:1080", "all_proxy names a socks5 proxy, and only http and https ones"),
        ("https_proxy", "ftp://host", "https_proxy names a ftp proxy"),
        ("https_proxy", "http://me:secret@host:port", "https_proxy is not the address of a proxy"),
        ("https_proxy", "http://me:secret@host:99999", "https_proxy is not the address of a proxy"),
        ("https_proxy", "http://", "https_proxy is not the address of a proxy"),
        ("https_proxy", "http://[secret", "https_proxy is not the address of a proxy"),
    ],
)
def test_bad_proxies(monkeypatch, variable, address, message):
    monkeypatch.setenv(variable, address)
    with pytest.raises(InputError, match=message) as caught:
        client(Fault("https://model.example", Path()))
    assert str(caught.value).endswith("or list model.example in no_proxy")
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    client(Fault("http://127.0.0.1:9", Path()), Fault("http://model.example", Path()))
    monkeypatch.setenv("no_proxy", "model.example")
    client(Fault("https://model.example", Path()))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1:80", "[::1]:8000", "LOCALHOST", "box.localhost:1"])
def test_this_machine_gets_the_key_over_plain_http(monkeypatch, host):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert endpoints("m", f"http://{host}/v1")[0].key == KEY
    assert endpoints("m", f"http://{host.replace('1', '8').lower().replace('localhost', 'lan')}/v1")[0].key == ""


def test_endpoints_of_a_file(tmp_path, monkeypatch):
    path = tmp_path / "models.yaml"
    path.write_text(f"""
gpt-4o: {{openai_api_key: {KEY}, openai_api_base: https://a.openai.azure.com, engine: one, api_version: 2024-06-01}}
many:
  - {{key_env: MY_KEY, openai_api_base: "https://b.openai.azure.com", engine: two}}
  - {{openai_api_key: 00112233445566778899}}
  - {{openai_api_base: "http://box:8000/v1"}}
""")
    with pytest.raises(InputError, match="variable MY_KEY is not set"):
        endpoints("many", model_config=path)
    monkeypatch.setenv("MY_KEY", OTHER)
    monkeypatch.setenv("MODEL_CONFIG", str(path))
    assert endpoints("gpt-4o") == [Endpoint("https://a.openai.azure.com", KEY, "one", "2024-06-01")]
    assert endpoints("many") == [
        Endpoint("https://b.openai.azure.com", OTHER, "two", AZURE_VERSION),
        Endpoint("https://api.openai.com/v1", "00112233445566778899"),
        Endpoint("http://box:8000/v1", ""),
    ]
    assert endpoints("gpt-4o", "http://box/v1") == [Endpoint("http://box/v1", "")]
    with pytest.raises(InputError, match="not both"):
        endpoints("gpt-4o", "http://box/v1", path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpt-4: {openai_api_key: KEY}", "no entry 'gpt-4o'; did you mean gpt-4?"),
        ("gpt-4o: {openai_key: KEY}", "unknown key 'openai_key'; did you mean openai_api_key?"),
        ("gpt-4o: {openai_api_key: KEY, key_env: HOME}", "not both"),
        ("gpt-4o: {openai_api_key: KEY, engine: one}", "openai_api_base"),
        ("gpt-4o: {openai_api_key: KEY, openai_api_base: 'https://a', api_version: v}", "engine"),
        ("gpt-4o: {openai_api_base: 'https://a', engine: one}", "no key"),
        ("gpt-4o: {openai_api_key: [KEY]}", "mapping"),
        ("gpt-4o: []", "has no entry"),
        ("gpt-4o: {openai_api_key: 'KEY KEY'}", "copy it again"),
        ("gpt-4o: {openai_api_key: KEY", "line 1: this is not YAML"),
        ("gpt-4o: {openai_api_key: KEY, openai_api_base: 'https://user:KEY@host/v1'}", "API base of host"),
        ("gpt-4o: {openai_api_key: KEY, openai_api_base: 'https://host/v1?api-key=KEY'}", "API base of host"),
        ("gpt-4o: {openai_api_key: KEY, openai_api_base: 'host/KEY'}", "https://"),
        ("gpt-4o: {openai_api_key: KEY, openai_api_base: 'http://host:KEY/v1'}", "https://"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "models.yaml").write_text(text.replace("KEY", KEY))
    with pytest.raises(InputError) as caught:
        endpoints("gpt-4o", model_config=tmp_path / "models.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_keys_do_not_lie_in_the_repository(tmp_path):
    inside = ROOT / "data" / "keys.yaml"
    (tmp_path / "link.yaml").symlink_to(inside)
    for path in (inside, tmp_path / "link.yaml"):
        with pytest.raises(InputError, match="lies in the repository"):
            endpoints("gpt-4o", model_config=path)
    with pytest.raises(InputError, match="cannot read"):
        endpoints("gpt-4o", model_config=tmp_path / "missing.yaml")
