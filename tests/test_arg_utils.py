from dataclasses import MISSING, dataclass

import pytest

from dpsda.arg_utils import option, parse, run
from dpsda.errors import InputError
from dpsda.privacy.errors import BudgetError


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


@pytest.mark.parametrize(
    "text, message",
    [
        ("nmae: a", "unknown key 'nmae'; did you mean name?"),
        ("epochs: many", "epochs has to be int"),
        ("epochs: 2.5", "epochs has to be int"),
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


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
