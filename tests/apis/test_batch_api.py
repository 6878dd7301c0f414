"""The batch interface against a server that fails on purpose, in a process of its own."""

import json
import subprocess
import sys
import time
import traceback
from collections import Counter

import pytest

from apis import azure_api, batch_api
from apis.api import Prompt
from apis.batch_api import BatchAPI
from apis.endpoints import AZURE_VERSION, Endpoint
from apis.engines import engine
from apis.journal import Journal
from dpsda.errors import InputError
from dpsda.options import ModelOptions, RemoteOptions
from tests.apis.fault_server import filtered, reply
from tests.apis.test_azure_api import ANSWERS, KEY, OTHER, PROMPTS, ROOT, Fault, environment, serve

__all__ = ["environment", "serve"]  # fixtures


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No time is lost between two tries, and two looks."""
    monkeypatch.setattr(azure_api, "BACKOFF", lambda state: 0.001)
    monkeypatch.setattr(batch_api, "PAUSE", 0.001)
    monkeypatch.setattr(batch_api, "LONGEST_PAUSE", 0.01)


def client(server: Fault, **options) -> BatchAPI:
    return BatchAPI("gpt-4o-mini", endpoints=[Endpoint(f"{server.url}/v1", KEY)], **{"progress": False, **options})


def asked(server: Fault) -> Counter:
    """How often a prompt was in a batch."""
    return Counter(request["prompt"] for request in server.requests if "batch" in request)


def calls(server: Fault) -> list[str]:
    return [request["call"] for request in server.requests if "call" in request]


def test_answers_come_in_place(serve):
    server = serve(batches=2, rates={"filter": 0.3}, keys=[KEY])
    heard = {}
    answers = client(server, temperature=1.4).generate(PROMPTS, 0, heard.__setitem__)
    assert answers == [None if filtered(prompt.text, 0.3) else reply(prompt.text) for prompt in PROMPTS]
    assert heard == dict(enumerate(answers)) and 0 < answers.count(None) < len(PROMPTS)
    assert set(asked(server).values()) == {1} and len(asked(server)) == len(PROMPTS)
    assert calls(server).count("POST batches") == 1 and calls(server).count("GET batches/batch_0") == 3
    line = next(request for request in server.requests if "batch" in request)
    assert line["path"] == "/v1/chat/completions"
    assert line["body"] == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "prompt 0"}],
        "temperature": 1.4,
        "top_p": 1.0,
        "max_tokens": 5,
    }


def test_lines_that_fail_are_asked_again_in_another_batch(serve, tmp_path, capsys):
    faults = ["429", "500", "expired", "no line", "error in 200", "too long", "refusal", "no temperature"]
    server, log = serve(batches=1, script=faults), tmp_path / "requests.jsonl"
    answers = client(server, log=log, temperature=1.4).generate(PROMPTS, 0)
    assert answers == [*ANSWERS[:5], None, None, *ANSWERS[7:]]
    often = asked(server)
    assert {often[prompt.text] for prompt in PROMPTS[:5]} == {2} and often["prompt 7"] == 2
    assert sum(often.values()) == len(PROMPTS) + 6 == len(log.read_text().splitlines())
    assert calls(server).count("POST batches") == 2
    assert [r["body"].get("temperature") for r in server.requests if r.get("prompt") == "prompt 7"] == [1.4, None]
    err = capsys.readouterr().err
    for words in ("429", "500", "batch_expired", "too long", "does not take temperature"):
        assert words in err
    assert err.count("429") == 1


def test_giving_up_keeps_what_was_answered(serve):
    server = serve(batches=0, script=[None] * 20, rates={"500": 1.0})
    with pytest.raises(InputError, match=r"4 tries of one request failed, the last with status 500.* 20 answers are"):
        client(server).generate(PROMPTS, 0)
    assert max(asked(server).values()) == 4


@pytest.mark.parametrize("fault", ["range", "spent"])
def test_what_never_passes_ends_the_run_and_keeps_the_answers(serve, fault):
    server, heard = serve(batches=0, script=[fault]), {}
    with pytest.raises(InputError, match="59 answers are kept"):
        client(server).generate(PROMPTS, 0, heard.__setitem__)
    assert heard == {number: answer for number, answer in enumerate(ANSWERS) if number}
    assert calls(server).count("POST batches") == 1


CHILD = """
import json, sys
from pathlib import Path
from apis import batch_api
from apis.api import Prompt
from apis.endpoints import Endpoint
from apis.journal import Journal
url, key, texts, folder = json.loads(sys.argv[1])
batch_api.PAUSE = batch_api.LONGEST_PAUSE = 0.05
log = Path(folder, "requests.jsonl")
api = batch_api.BatchAPI("gpt-4o-mini", endpoints=[Endpoint(url + "/v1", key)], log=log, progress=False)
Journal(api, Path(folder)).generate([Prompt(text, max_new_tokens=5) for text in texts], 7)
"""


def test_a_killed_run_waits_for_its_batch(serve, tmp_path):
    server = serve(batches=15)
    arguments = json.dumps([server.url, KEY, [prompt.text for prompt in PROMPTS], str(tmp_path)])
    child = subprocess.Popen([sys.executable, "-c", CHILD, arguments], cwd=ROOT)
    while not [call for call in calls(server) if call.startswith("GET batches/")]:
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.communicate()
    log = tmp_path / "requests.jsonl"
    assert not log.read_text()
    api = client(server, log=log)
    assert Journal(api, tmp_path).generate(PROMPTS, 7) == ANSWERS
    assert set(asked(server).values()) == {1} and calls(server).count("POST batches") == 1
    assert api.spending.requests == len(log.read_text().splitlines()) == len(PROMPTS)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 17, 59])
def test_a_run_killed_while_it_hands_over_loses_and_repeats_nothing(serve, tmp_path, monkeypatch, after):
    """Of several batches, with prompts that are the same: each line answers one of them."""
    monkeypatch.setattr(batch_api, "MOST_REQUESTS", 25)
    server, log = serve(batches=0), tmp_path / "requests.jsonl"
    prompts = PROMPTS[:20] * 3
    heard = []

    def hear(number, answer):
        if len(heard) == after:
            raise Killed
        heard.append((number, answer))

    with pytest.raises(Killed):
        Journal(client(server, log=log), tmp_path).generate(prompts, 0, hear)
    api = Journal(client(server, log=log), tmp_path)
    assert api.generate(prompts, 0) == ANSWERS[:20] * 3
    assert asked(server) == Counter(prompt.text for prompt in prompts)
    assert calls(server).count("POST batches") == 3
    assert api.generate(prompts, 1) == ANSWERS[:20] * 3  # another call asks anew
    assert calls(server).count("POST batches") == 6 and set(asked(server).values()) == {6}
    # a line that was handed over and not counted is of a call that is over, and left alone
    assert api.api.spending.requests == len(log.read_text().splitlines()) == 120 - (after == 59)


@pytest.mark.parametrize("killed_at", ["asks", "id"])
def test_a_batch_whose_id_was_not_stored_is_found_by_its_name(serve, tmp_path, monkeypatch, killed_at):
    monkeypatch.setattr(batch_api, "PAGE", 2)
    server, log = serve(batches=0), tmp_path / "requests.jsonl"
    note = BatchAPI._note

    def kill(self, batch, **facts):
        if killed_at in facts:
            raise Killed
        note(self, batch, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(BatchAPI, "_note", kill)
        with pytest.raises(Killed):
            client(server, log=log).generate(PROMPTS, 0)
    for _ in range(4):  # of somebody else
        client(server).generate([Prompt("other")], 0)
    assert client(server, log=log).generate(PROMPTS, 0) == ANSWERS
    assert {often for prompt, often in asked(server).items() if prompt != "other"} == {1}


def test_a_creation_whose_answer_is_lost_is_not_made_twice(serve):
    server = serve(batches=0, calls=[None, None, "lost"])
    assert client(server, timeout=0.5).generate(PROMPTS, 0) == ANSWERS
    assert calls(server).count("POST batches") == 1


def test_calls_that_fail_are_made_again(serve):
    server = serve(batches=0, calls=["429", None, "500", None, "500", None, "429", None, "500"])
    assert client(server).generate(PROMPTS, 0) == ANSWERS
    assert set(asked(server).values()) == {1}


def test_a_service_that_lists_no_batches(serve, tmp_path):
    server, log = serve(batches=0, calls=[None, "405"]), tmp_path / "requests.jsonl"
    assert client(server, log=log).generate(PROMPTS, 0) == ANSWERS


def test_large_batches_are_divided_by_their_bytes(serve, monkeypatch):
    monkeypatch.setattr(batch_api, "MOST_BYTES", 1000)
    server = serve(batches=0)
    assert client(server).generate(PROMPTS, 0) == ANSWERS
    assert 10 < calls(server).count("POST batches") < 30


def test_a_batch_that_is_refused_as_a_whole(serve, tmp_path, capsys):
    server, log = serve(batches=0, calls=[None, None, "full", None, None, None, "invalid"]), tmp_path / "requests.jsonl"
    with pytest.raises(InputError, match=r"^endpoint 1 .* refused a batch: not so, \[key\]$"):
        client(server, log=log).generate(PROMPTS, 0)
    assert "refused a batch, is asked again: not so, [key]" in capsys.readouterr().err
    api = client(server, log=log)
    assert api.generate(PROMPTS, 0) == ANSWERS
    assert api.spending.requests == len(PROMPTS) == len(log.read_text().splitlines())


def test_budget_of_requests(serve, tmp_path):
    server, log = serve(batches=0), tmp_path / "state" / "requests.jsonl"

    def ask(most):
        return Journal(client(server, max_requests=most, log=log), tmp_path).generate(PROMPTS, 0)

    for most in (20, 20, 45):
        with pytest.raises(InputError, match=rf"^the budget of --max_requests {most} is used up: {most} requests"):
            ask(most)
        assert sum(asked(server).values()) == most
    assert ask(60) == ANSWERS
    assert set(asked(server).values()) == {1}


def test_budget_in_dollars(serve, tmp_path):
    """An estimate before, the usage afterwards, for half the price; and the same totals from the file."""
    server, log, prices = serve(batches=0), tmp_path / "requests.jsonl", tmp_path / "prices.yaml"
    prices.write_text("gpt-4o-mini: {input: 1000, output: 2000}")
    most = (0.001 * (len("prompt 1") // 2 + 8) + 0.002 * 5) / 2
    options = {"prices": prices, "log": log, "max_cost": 20.5 * most}
    with pytest.raises(InputError, match=r"^the budget of --max_cost 0.22\d* is used up: 20 requests, \$0.20"):
        client(server, **options).generate(PROMPTS, 0)
    api = client(server, **options)
    assert api.spending.cost == pytest.approx(20 * 0.02 / 2)
    api.check(PROMPTS[0])  # at its full price
    for known in (api, client(server, **options)):
        assert known.spending.cost == pytest.approx(20 * 0.02 / 2 + 0.02) and known.spending.requests == 21
    with pytest.raises(InputError, match="max_cost"):
        client(server, **options).generate(PROMPTS, 0)
    assert sum(asked(server).values()) == 20


def test_azure(serve):
    server = serve(batches=1, keys=[KEY], script=["batch only"], calls=["pending"])
    end = Endpoint(server.url, KEY, "mine", AZURE_VERSION)
    api = BatchAPI("gpt-4o-mini", endpoints=[end], progress=False)
    api.check(PROMPTS[0])
    assert api.generate(PROMPTS, 0) == ANSWERS
    paths = {request["path"] for request in server.requests if "call" in request}
    assert all(path.startswith(("/openai/files", "/openai/batches")) for path in paths)
    assert all(path.endswith(f"?api-version={AZURE_VERSION}") or "limit=100" in path for path in paths)
    lines = [request for request in server.requests if "batch" in request]
    assert {(line["path"], line["body"]["model"]) for line in lines} == {("/chat/completions", "mine")}


def test_a_server_without_batches(serve):
    server = serve()
    with pytest.raises(InputError, match=r"^endpoint 1 .* answered 404: .* no batches, so leave --api_batch out$") as e:
        client(server).generate(PROMPTS, 0)
    assert "\n" not in str(e.value)
    client(server).check(PROMPTS[0])


def test_one_endpoint_is_asked(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"^--api_batch asks one endpoint, and there are 2 of 'm': leave one in"):
        BatchAPI("m", endpoints=[Endpoint("https://a/v1", KEY), Endpoint("https://b/v1", KEY)])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = engine(ModelOptions(api="AzureGPT", model_type="m"), RemoteOptions(api_batch=True), tmp_path)
    assert type(made) is BatchAPI and made.record == tmp_path / "batches.jsonl"


@pytest.mark.parametrize("fault", ["400", "401", "500", None])
@pytest.mark.parametrize("where", ["calls", "script"])
def test_keys_show_nowhere(serve, fault, where, tmp_path, capfd, caplog):
    caplog.set_level("DEBUG")
    server = serve(batches=0, keys=[KEY], **{where: [fault] * 100})
    api = client(server, log=tmp_path / "requests.jsonl", progress=True)
    shown = [repr(api), repr(vars(api))]
    try:
        api.generate(PROMPTS[:2], 0)
    except InputError as error:
        shown += traceback.format_exception(error)
        assert fault and "[key]" in str(error)
    else:
        assert fault is None
    shown += [*capfd.readouterr(), repr(vars(api)), *(path.read_text() for path in tmp_path.glob("*s.jsonl"))]
    assert KEY in server.log.read_text() and not any(KEY in text or OTHER in text for text in shown)
    assert not any("prompt 1" in path.read_text() for path in tmp_path.glob("*s.jsonl"))
    assert not any(record.name.startswith(("openai", "http")) for record in caplog.records)
