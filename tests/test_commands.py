"""`dpsda`: one table of all commands."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import time

import pytest

from dpsda import commands
from dpsda.commands import COMMANDS, OTHERS
from tests.forks import ROOT


def dpsda(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dpsda", *map(str, words)], capture_output=True, text=True, cwd=ROOT)


def test_every_command_is_in_the_table():
    scripts = {path.stem for path in ROOT.glob("*.py")} - {"setup", "main"} | {"augpe"}
    assert scripts <= set(COMMANDS)
    named = {command.module for command in COMMANDS.values()} | {module for _, module, _ in OTHERS.values()}
    for path in (*ROOT.glob("dpsda/**/*.py"), *ROOT.glob("apis/**/*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if '__name__ == "__main__"' in path.read_text():
            assert module in named | {"dpsda.__main__"}, module


def test_what_the_table_calls_is_there():
    for name, command in COMMANDS.items():
        for function in command.steps or [""]:
            assert callable(command.route(function)), name
    for name, (_, module, _) in OTHERS.items():
        assert callable(importlib.import_module(module).main), name


@pytest.mark.parametrize("name", [*COMMANDS, *OTHERS])
def test_every_command_has_help(name):
    done = dpsda(name, "--help")
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout) > 40, done.stderr


def test_the_list_is_quick_and_whole():
    """Half a second of the processor, the best of three; without numpy, pandas or torch."""
    times = []
    for _ in range(3):
        before = time.monotonic()
        done = dpsda()
        times.append(time.monotonic() - before)
    assert min(times) < 1
    assert re.findall(r"^ +dpsda (\w+)", done.stdout, re.M) == [*COMMANDS, *OTHERS]
    code = "import sys; from dpsda import commands; print({'numpy', 'pandas', 'torch'} & set(sys.modules))"
    light = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert light.stdout.strip() == "set()", light.stderr


def test_a_command_that_is_not_there_is_one_line():
    done = dpsda("augment")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: no command 'augment'; did you mean augpe?")


def test_a_command_with_its_own_arguments_gets_them(tmp_path, monkeypatch, capsys):
    for words, said in (
        (["epsilon", "--noise", "4", "--delta", "1e-5", "--steps", "1"], "epsilon (PLD)"),
        (["verify", tmp_path], "no certificate here"),
    ):
        monkeypatch.setattr(sys, "argv", ["dpsda", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            commands.main()
        printed = capsys.readouterr()
        assert said in printed.out + printed.err and stop.value.code == (2 if words[0] == "verify" else 0)
