import math
import os
import re
import subprocess
import sys
from dataclasses import MISSING, dataclass

import pytest

from dpsda import arg_utils
from dpsda.arg_utils import option, parse, run, typed
from dpsda.errors import InputError
from dpsda.options import DataOptions, ModelOptions, PrivacyOptions, RunOptions
from dpsda.privacy.errors import BudgetError

GROUPS = (DataOptions, PrivacyOptions, ModelOptions, RunOptions)


@dataclass(frozen=True)
class Options:
    """Things."""

    name: str = option(MISSING, "who")
    noise: float | None = option(None, "a multiplier", "noise_multiplier")
    epochs: int = option(3, "how many")
    sizes: list[int] | None = option(None, "some sizes")
    mode: str = option("rank", "which", choices=("rank", "prob"))
    loud: bool = option(False, "say more")


def read(*argv):
    return parse(list(argv), "prog", "about", Options)[0]


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_the_command_line_goes_before_yaml_and_that_before_the_default(config):
    file = config("name: a\nepochs: 5\nnoise_multiplier: 2\nsizes: [1, 2]\nloud: true\n")
    assert read("--config", file) == Options("a", 2.0, 5, [1, 2], "rank", True)
    given = read("--config", file, "--epochs", "7", "--noise", "1.5", "--sizes", "3", "4", "--no-loud")
    assert given == Options("a", 1.5, 7, [3, 4], "rank", False)
    assert read("--name", "b") == Options("b")


def test_yaml_numbers_as_people_write_them(config):
    assert read("--config", config("name: 5\nnoise: 1e-5")) == Options("5", 1e-5)
    assert read("--config", config("name: x\nnoise: inf\nsizes: 4")).sizes == [4]


@pytest.mark.parametrize("written", ["007", "1e3", "no", "3.10", "2024-05-01", "1_000", "0x1F", "~x", "'null'"])
def test_a_yaml_text_keeps_its_spelling(config, written):
    assert read("--config", config(f"name: {written}")).name == written.strip("'")


@pytest.mark.parametrize(
    "text, value",
    [
        ("noise: inf", float("inf")),
        ("noise: .inf", float("inf")),
        ("noise: -.INF", float("-inf")),
        ("noise: .5", 0.5),
        ("noise: 1e-5", 1e-5),
        ("noise: 3", 3.0),
        ("epochs: 007", 7),
        ("epochs: 010", 10),
        ("epochs: -1", -1),
        ("epochs: '4'", 4),
        ("loud: yes", True),
        ("loud: On", True),
        ("loud: TRUE", True),
        ("loud: no", False),
        ("loud: off", False),
        ("sizes: [1, 02]", [1, 2]),
        ("epochs:", 3),
        ("epochs: ~", 3),
    ],
)
def test_a_yaml_value_is_of_the_type_of_its_option(config, text, value):
    found = getattr(read("--config", config(f"name: x\n{text}")), text.split(":")[0])
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("nmae: a", "unknown key 'nmae'; did you mean name?"),
        ("epochs: many", "epochs has to be int"),
        ("epochs: 2.5", "epochs has to be int"),
        ("epochs: 5.0", "epochs has to be int"),
        ("epochs: 1e3", "epochs has to be int"),
        ("epochs: [3]", "epochs has to be int"),
        ("noise: yes", "noise has to be float"),
        ("noise: 1:30", "noise has to be float"),
        ("name: [a]", "name has to be str"),
        ("sizes: [1, ~]", "sizes has to be int, not None"),
        ("sizes: []", "sizes is an empty list"),
        ("name: a\nname: b", "the key 'name' is given twice"),
        ("noise: 1\nnoise_multiplier: 2", "noise_multiplier is another name of noise, which is given, too"),
        ("epochs: true", "epochs has to be int"),
        ("loud: 1", "loud has to be true or false"),
        ("mode: best", "mode is one of rank, prob"),
        ("sizes: [a]", "sizes has to be int"),
        ("- a", "`option: value` lines"),
        ("name: [", "not YAML"),
        ('api_key: "sk-hunter2', r"line \d+: this is not YAML$"),  # and not what the line holds
        ("wandb_key: s3cret", "WANDB_API_KEY"),
    ],
)
def test_a_bad_file_is_one_line(config, text, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")) as error:
        read("--config", config(text))
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
        (["--name", "a", "stray"], "unexpected argument 'stray'"),
        (["--name", "a", "--loud", "True"], "but --NAME or --no-NAME"),
        (["--epochs", "x"], "invalid int value"),
        (["--mode", "best"], "invalid choice"),
        ([], "--name is needed: who"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["--wandb_key", "s3cret"], "WANDB_API_KEY"),
        (["--wandb_key=s3cret"], "WANDB_API_KEY"),
    ],
)
def test_a_bad_command_line_is_one_line(argv, message):
    with pytest.raises(InputError) as error:
        read(*argv)
    assert message in str(error.value) and "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "error, code, line",
    [
        (InputError("bad\ninput"), 2, "error: bad input\n"),
        (BudgetError("spent"), 2, "error: spent\n"),
        (OSError(28, "No space left on device", "/x/y"), 2, "error: /x/y: No space left on device; "),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_an_entry_point_ends_in_one_line_and_a_code(error, code, line, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run(main)
    printed = capsys.readouterr().err
    assert stop.value.code == code and printed.startswith(line) and printed.count("\n") == 1


def test_a_bug_is_one_line_without_private_content_and_its_trace_is_private(tmp_path, monkeypatch, capsys):
    """What a library raises may quote a record: nothing of it is shown."""
    monkeypatch.setenv("DPSDA_HOME", str(tmp_path / "home"))
    root = tmp_path / "run"
    root.mkdir()

    def main():
        secret = "the patient Jane Doe"
        groups = parse(["--dataset", "x", "--epsilon", "1", "--result_folder", str(root)], "", "", *GROUPS)
        return {}[secret], groups

    for folder, fault in ((tmp_path / "home" / "private", lambda: int("Jane Doe")), (root / "private", main)):
        monkeypatch.setattr(arg_utils, "_run_folder", None)
        with pytest.raises(SystemExit) as stop:
            run(fault)
        out, err = capsys.readouterr()
        assert stop.value.code == 1 and err.count("\n") == 1 and not out and "Jane" not in err
        [trace] = folder.glob("trace-*.txt")
        assert re.match(r"error: unexpected (Key|Value)Error in \S+( library)?", err) and str(trace) in err
        assert "Jane Doe" in trace.read_text() and "Traceback" in trace.read_text()
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_line_of_a_bug_names_our_own_file(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DPSDA_HOME", str(tmp_path))
    monkeypatch.setattr(arg_utils, "_run_folder", None)
    with pytest.raises(SystemExit):
        run(lambda: parse([], "", "", type("NoDataclass", (), {})))
    assert re.search(r"unexpected TypeError in dpsda/arg_utils\.py, line \d+: a fault of", capsys.readouterr().err)


@pytest.mark.parametrize("form", ["word", "equals", "yaml"])
def test_a_path_below_home_is_expanded(form, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "x.yaml"
    file.write_text("result_folder: ~/runs/x\n" if form == "yaml" else "{}")
    words = {"word": ["--result_folder", "~/runs/x"], "equals": ["--result_folder=~/runs/x"], "yaml": []}[form]
    argv = ["--dataset", "~", "--epsilon", "1", "--config", str(file), "--model_type", "a~/b", *words]
    data, _, model, run = parse(argv, "", "", *GROUPS)
    assert (data.dataset, run.result_folder, model.model_type) == (str(tmp_path), f"{tmp_path}/runs/x", "a~/b")


def test_a_terminal_that_has_not_every_letter_ends_no_run():
    code = "from dpsda.arg_utils import run; run(lambda: print('Zürich 東京'))"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0 and done.stdout == b"Z\\xfcrich \\u6771\\u4eac\n" and not done.stderr


@dataclass(frozen=True)
class Bounded(arg_utils.Options):
    """Numbers."""

    count: int | None = option(None, "how many", least=1)
    share: float = option(0.5, "how much of it", above=0, most=1)
    rate: float = option(1.0, "how fast", above=0)
    degrees: list[float] = option([0.5], "how far", least=0, below=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"count": 0}, "--count has to be at least 1, not 0"),
        ({"share": 0.0}, "--share has to be above 0 and at most 1, not 0"),
        ({"share": 1.5}, "--share has to be above 0 and at most 1, not 1.5"),
        ({"share": math.nan}, "--share has to be above 0 and at most 1, not nan"),
        ({"rate": math.inf}, "--rate has to be above 0 and finite, not inf"),
        ({"degrees": [0.0, 1.0]}, "--degrees has to be at least 0 and below 1, not 1"),
    ],
)
def test_a_number_lies_within_its_bounds(given, words):
    assert Bounded(2, 1.0, 1e9, [0.0]) and Bounded()
    with pytest.raises(InputError, match=f"^{re.escape(words)}$"):
        Bounded(**given)


def test_another_default_changes_nothing_else():
    @dataclass(frozen=True)
    class Other(arg_utils.Options):
        """More."""

        count: int | None = arg_utils.another_default(Bounded, "count", 7)

    assert Other().count == 7 and parse(["--count", "3"], "", "", Other)[0].count == 3
    with pytest.raises(InputError, match="at least 1"):
        Other(0)


def test_commands_are_told_as_they_can_be_typed(tmp_path, monkeypatch):
    """By name where the PATH has this very program; by the path of the one beside this Python from where one stands."""
    bin, other = tmp_path / "clone" / ".venv" / "bin", tmp_path / "other"
    for folder in (bin, other):
        folder.mkdir(parents=True)
    for program in (bin / "dpsda", other / "dpsda"):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setattr(sys, "executable", str(bin / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert typed("show RUN") == ".venv/bin/dpsda show RUN"
    monkeypatch.setenv("PATH", str(other))
    assert typed("show RUN") == ".venv/bin/dpsda show RUN"
    monkeypatch.setenv("PATH", str(bin))
    assert typed("show RUN") == "dpsda show RUN"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert typed("show RUN") == "clone/.venv/bin/dpsda show RUN"
    monkeypatch.chdir(other)
    assert typed("show RUN") == f"{bin / 'dpsda'} show RUN"
    (bin / "dpsda").unlink()
    assert typed("show RUN") == f"{bin / 'python'} -m dpsda show RUN"
