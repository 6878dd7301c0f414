"""Threads that wait sleep, where others use the machine, and it is said that they do."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
import time

import pytest
import torch

from dpsda import threads

CODE = "import os, sys; from dpsda import arg_utils; arg_utils.run(lambda: print(os.environ.get('GOMP_SPINCOUNT')))"


@pytest.mark.parametrize(
    "given, spins",
    [({}, threads.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_an_entry_point_says_how_threads_wait_unless_the_environment_does(given, spins):
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=plain | given)
    assert done.stdout.strip() == spins and not done.stderr


def test_torch_is_not_imported_before():
    code = "import sys; import main, finetune, predict, metric, audit, align; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """As in a process whose workers are not elsewhere."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)


def test_a_busy_machine_is_named(capsys):
    before, start = threads._used(), time.monotonic()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        time.sleep(1.5)
        threads._say(before, start)
        neighbour.kill()
    assert re.match(r"note: other processes take \d+\.\d of the \d+ cores here", capsys.readouterr().err)


@pytest.mark.parametrize("mine", [20.0, 19.9])
def test_what_this_process_does_itself_is_no_neighbour(monkeypatch, capsys, mine):
    monkeypatch.setattr(threads, "_used", lambda: (20.0, mine))
    threads._say((0.0, 0.0), time.monotonic() - 10)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("iterators, share", [(2, 2), (3, 1), (4, 1)])
def test_side_by_side_each_has_its_share_of_the_cores(cores, iterators, share):
    cores(4)
    meet = threading.Barrier(iterators, timeout=60)  # none goes on before all have begun

    def counts(number):
        meet.wait()
        for item in range(5):
            yield number, item, torch.get_num_threads()

    found = list(threads.side_by_side([counts(number) for number in range(iterators)]))
    assert sorted(found) == [(number, item, share) for number in range(iterators) for item in range(5)]
    assert torch.get_num_threads() == 4
    after = []
    later = threading.Thread(target=lambda: after.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert after == [4]


def test_side_by_side_an_error_ends_it(cores):
    cores(4)

    def fails():
        yield "first"
        raise ValueError("what one of them raises")

    before = threading.active_count()
    with pytest.raises(ValueError, match="what one of them raises"):
        list(threads.side_by_side([fails(), itertools.repeat("more")]))
    assert threading.active_count() == before


def test_side_by_side_ends_where_nobody_takes_more(cores):
    cores(4)
    before = threading.active_count()
    items = threads.side_by_side([itertools.count(), itertools.count()])
    next(items)
    items.close()
    assert threading.active_count() == before


def test_one_core_computes_where_it_is_asked():
    assert threads.most_parts("cuda") == 1
    [name] = threads.side_by_side([(threading.current_thread().name for _ in range(1))])
    assert name == threading.current_thread().name
