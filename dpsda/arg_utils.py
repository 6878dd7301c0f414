"""Command lines from dataclasses: a field is a flag, and the same name is a key of `--config file.yaml`.

The command line goes before the YAML file, and that before the default. An option dataclass checks its own values in
`__post_init__`. Nothing heavy is imported here: `--help` has to answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import operator
import os
import re
import shlex
import shutil
import sys
import time
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from dpsda import threads
from dpsda.assets import home, shipped
from dpsda.errors import InputError, did_you_mean
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.files import private_folder, write_atomic

_ROOT = Path(__file__).parents[1]
_run_folder: Path | None = None  # of the command, for the trace of an error
_REFUSED = {"wandb_key": "WANDB_API_KEY", "api_key": "OPENAI_API_KEY or AZURE_OPENAI_API_KEY"}

_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}  # in YAML files

# flags of the paper's code that are another flag with a value here
_SPELLED = {
    "--fp16": ("--dtype", "float16"),
    "--no_cuda": ("--device", "cpu"),
    "--dp=none": ("--epsilon", "inf"),
}

# and those that are something else
_REPLACED = {
    "dp": "--dp none, or --epsilon inf, runs without noise; else give --epsilon or --noise",
    "fp16": "use dtype: float16",
    "no_cuda": "use device: cpu",
    "mlm_probability": "use --variation_degree_schedule",
    "data_checkpoint_path": "not needed, the same command continues the run in --result_folder",
    "data_checkpoint_step": "not needed, the same command continues the run in --result_folder",
    "train_data_embeddings_file": "not needed, what scripts/embeddings.sh makes is found by the texts",
    "feature_extractor_batch_size": "not needed, the batches of the encoder have fixed shapes",
    "compute_fid": "use --reference_split SPLIT, whose figures are shown where spec.yaml declares the split public",
    "num_private_samples": "use --private_share, by which each record is in or out on its own",
    "subsample_one_class": "use `filter:` in spec.yaml, which names the class",
    "sleep_time": "not needed, a wait is as long as the server's Retry-After says",
}


def option(
    default: Any,
    help: str,
    *aliases: str,
    choices: Sequence[str] = (),
    free: bool = False,
    instead_of: str = "",
    **bounds: float,
) -> Any:
    """A dataclass field that is a flag. `free` marks what a restarted run may change without being another run;
    given on the command line, a flag takes the place of the YAML file's `instead_of`. A number is finite and within
    its `bounds`, some of `least`, `above`, `most` and `below`."""
    about = {"help": help, "aliases": aliases, "choices": choices, "free": free, "instead_of": instead_of}
    return _field(default, {**about, "bounds": bounds})


def another_default(group: type, name: str, default: Any) -> Any:
    """The option `name` of another group, with a default of one's own."""
    [metadata] = (item.metadata for item in fields(group) if item.name == name)
    return _field(default, metadata)


def _field(default: Any, metadata: Mapping[str, Any]) -> Any:
    if default is MISSING:
        return field(metadata=metadata)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


@dataclass(frozen=True)
class Options:
    """A group of options. InputError for a number that is not within the bounds of its `option`."""

    def __post_init__(self) -> None:
        for item in fields(self):
            bounds, given = item.metadata["bounds"], getattr(self, item.name)
            for value in given if isinstance(given, list) else [given]:
                if not bounds or value is None:
                    continue
                if not (math.isfinite(value) and all(_BOUNDS[key][1](value, end) for key, end in bounds.items())):
                    words = [f"{_BOUNDS[key][0]} {end:g}" for key, end in bounds.items()]
                    words += ["finite"] if isinstance(value, float) and not {"most", "below"} & bounds.keys() else []
                    raise InputError(f"--{item.name} has to be {' and '.join(words)}, not {value:g}")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that knows no abbreviations, keeps the line breaks of its description, and whose complaints are
    InputErrors, for `run` to print."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


@dataclass(frozen=True)
class _Flag:
    """A field as it is read: its scalar type, and whether it holds a list of them."""

    field: Field[Any]
    kind: type
    is_list: bool


def parse(argv: Sequence[str] | None, prog: str, description: str, *groups: type) -> tuple[Any, ...]:
    """One instance of every dataclass in `groups`, filled from the command line, the YAML file and the defaults.

    Raises InputError for an unknown flag or key (naming the nearest known one), a wrong type or a bad value.
    """
    parser = Parser(prog, description)
    parser.add_argument("--config", type=Path, help="a YAML file of the options below; the command line goes first")
    known: dict[str, _Flag] = {}
    for group in groups:
        section = parser.add_argument_group(*_title(group))
        hints = typing.get_type_hints(group)
        for item in fields(group):
            flag = _Flag(item, *_kind(hints[item.name]))
            known.update(dict.fromkeys((item.name, *item.metadata["aliases"]), flag))
            _add(section, flag)
    words = list(sys.argv[1:] if argv is None else argv)
    for at in range(len(words) - 1, 0, -1):
        if words[at - 1 : at + 1] == ["--dp", "none"]:
            words[at - 1 : at + 1] = ["--dp=none"]
    given_words = [part for word in words for part in _SPELLED.get(word, (word,))]
    args, unknown = parser.parse_known_args(given_words)
    flags = [word.lstrip("-").split("=")[0] for word in unknown if word.startswith("--")]
    replaced = [f"--{name}: {_REPLACED[name]}" for name in flags if name in _REPLACED]
    if replaced:
        raise InputError("flags that are something else here: " + "; ".join(replaced))
    for word in unknown:
        name = word.lstrip("-").split("=")[0]
        if name in _REFUSED:
            raise InputError(f"--{name} would leave a secret in shells and logs: set {_REFUSED[name]} instead")
        if word.startswith("--"):
            raise InputError(f"unknown option --{name}{did_you_mean(name, known, '--')}")
        if word.lower() in ("true", "false"):
            raise InputError(f"unexpected argument {word!r}: what is on or off takes no value, but --NAME or --no-NAME")
        raise InputError(f"unexpected argument {word!r}; options start with -- (see --help)")
    values = _read_yaml(args.config, known) if args.config else {}
    given = {key: value for key, value in vars(args).items() if key != "config" and value is not MISSING}
    given = {
        key: [item for word in value for item in word] if known[key].is_list else value for key, value in given.items()
    }
    for name in given:
        if given[name] == []:
            raise InputError(f"--{name} needs at least one value")
        values.pop(known[name].field.metadata["instead_of"], None)
    values.update(given)
    for name, flag in known.items():
        needed = flag.field.default is MISSING and flag.field.default_factory is MISSING
        if needed and name == flag.field.name and name not in values:  # an alias is not needed as well
            raise InputError(f"--{name} is needed: {flag.field.metadata['help']}")
    values = {name: _expanded(value) for name, value in values.items()}
    if isinstance(values.get("result_folder"), str):
        global _run_folder
        _run_folder = Path(values["result_folder"])
    return tuple(group(**{f.name: values[f.name] for f in fields(group) if f.name in values}) for group in groups)


def _expanded(value: Any) -> Any:
    """A path below somebody's home, which a shell leaves as it is in --name=~/x, and a YAML file does."""
    if isinstance(value, str) and value.startswith("~") and (value == "~" or "/" in value):
        with contextlib.suppress(RuntimeError):  # nobody of this name: whoever reads it says so
            return str(Path(value).expanduser())
    return value


def parse_step(prog: str, description: str, steps: dict[str, tuple[type, ...]]) -> tuple[str, tuple[Any, ...]]:
    """The step that the command line begins with, and one instance of each of its groups of options; --help alone
    prints `description` and ends the process. Raises InputError as `parse` does, and for an unknown step."""
    name, words = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in ("-h", "--help"):
        print(description)
        sys.exit(0)
    if name not in steps:
        raise InputError(f"no step {name!r}{did_you_mean(name, steps)}; there are: {', '.join(steps)}")
    return name, parse(words, f"{prog} {name}", description, *steps[name])


def run(main: Callable[[], None]) -> NoReturn:
    """Call an entry point: bad input is one line on stderr and exit code 2, an interrupt is 130.

    What nobody expected is 1. Its line says where it came from and quotes nothing, as an exception may quote a private
    text; the whole trace goes to a private folder.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has not every letter
    try:
        with threads.shared():
            main()
    except (InputError, PrivacyError) as error:
        _stop(str(error), 2)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"{where}{error.strerror or error}; the run can be continued with the same command", 2)
    except KeyboardInterrupt:
        _stop("interrupted; the same command continues the run", 130)
    except Exception as error:
        _stop(_unexpected(error), 1)
    sys.exit(0)


def _unexpected(error: Exception) -> str:
    """Keeps the trace of an error, and says of it what is public."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [(Path(f.filename).relative_to(_ROOT), f.lineno) for f in frames if Path(f.filename).is_relative_to(_ROOT)]
    ours = [(path, line) for path, line in inside if path.parts[0] in ("apis", "dpsda") or len(path.parts) == 1]
    place = f"{ours[-1][0]}, line {ours[-1][1]}" if ours else "a library"
    folder = private_folder(_run_folder / "private" if _run_folder and _run_folder.is_dir() else home() / "private")
    path = folder / f"trace-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    write_atomic(path, "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
    return (
        f"unexpected {type(error).__name__} in {place}: a fault of this program, or of a library that it uses; the "
        f"whole trace is in {path}, and may quote private texts"
    )


def _stop(message: str, code: int) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def typed(command: str) -> str:
    """`dpsda COMMAND` as one can type it in the folder that this runs in: by its name where the PATH has this very
    program, or else by the path of the one beside this Python."""
    own, found = Path(sys.executable).with_name("dpsda"), shutil.which("dpsda")
    if found and (not own.is_file() or own.samefile(found)):
        return f"dpsda {command}"
    program, words = (own, "") if own.is_file() else (Path(sys.executable), " -m dpsda")
    with contextlib.suppress(ValueError):  # it lies elsewhere
        program = program.relative_to(Path.cwd())
    return f"{shlex.quote(str(program))}{words} {command}"


def _title(group: type) -> tuple[str, str | None]:
    """The heading of a group of options, which is the first sentence of its docstring, and the rest of that."""
    title, _, rest = " ".join((group.__doc__ or group.__name__).split()).partition(". ")
    return title.rstrip("."), rest or None


def _add(section: Any, flag: _Flag) -> None:
    item = flag.field
    shown = f" (default: {item.default})" if item.default not in (MISSING, None, "", False) else ""
    common: dict[str, Any] = {"dest": item.name, "default": MISSING}
    common["help"] = item.metadata["help"].replace("%", "%%") + shown
    flags = [f"--{name}" for name in (item.name, *item.metadata["aliases"])]
    if flag.kind is bool:
        section.add_argument(*flags, action=argparse.BooleanOptionalAction, **common)
        return
    if item.metadata["choices"]:
        common["choices"] = item.metadata["choices"]
    else:
        common["metavar"] = flag.kind.__name__.upper()
    if flag.is_list:
        common["nargs"] = "+"
    section.add_argument(*flags, type=_listed(flag.kind) if flag.is_list else flag.kind, **common)


def _listed(kind: type) -> Callable[[str], Any]:
    """Reads one word of a list flag: an item, or several between commas, as the paper's code has them."""

    def read(word: str) -> list[Any]:
        return [kind(item) for item in word.split(",") if item]

    read.__name__ = kind.__name__  # what argparse calls it in its message
    return read


def _kind(hint: Any) -> tuple[type, bool]:
    """The scalar type of a field, and whether it is a list of them; `X | None` counts as X."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    return hint, False


def _read_yaml(path: Path, known: dict[str, _Flag]) -> dict[str, Any]:
    from dpsda import yaml_files

    data = yaml_files.read(shipped(path), "--config names a YAML file") or {}
    if not isinstance(data, dict):
        raise InputError(f"{path}: a configuration is a list of `option: value` lines")
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key in _REFUSED:
            raise InputError(f"{path}: {key} is a secret: set {_REFUSED[key]} in the environment instead")
        if key in _REPLACED and key not in known:
            raise InputError(f"{path}: {key} is something else here: {_REPLACED[key]}")
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}{did_you_mean(str(key), known)}")
        flag = known[key]
        if flag.field.name in values:
            raise InputError(f"{path}: {key} is another name of {flag.field.name}, which is given, too; give it once")
        if value is not None and flag.is_list:
            value = [_scalar(path, key, v, flag) for v in (value if isinstance(value, list) else [value])]
            if not value:
                raise InputError(f"{path}: {key} is an empty list; leave it out for the default")
        elif value is not None:
            value = _scalar(path, key, value, flag)
        if value is not None:  # an empty key means the default
            values[flag.field.name] = value
    return values


def _scalar(path: Path, key: str, value: Any, flag: _Flag) -> Any:
    """One YAML value, a text as it is written, as the flag's type. Infinity is `inf`, or YAML's own `.inf`."""
    kind, choices = flag.kind, flag.field.metadata["choices"]
    if isinstance(value, str) and kind is not str:
        with contextlib.suppress(ValueError, KeyError):
            value = _BOOLS[value.lower()] if kind is bool else kind(re.sub(r"^([+-]?)\.(?=[a-zA-Z])", r"\1", value))
    if type(value) is not kind:
        raise InputError(f"{path}: {key} has to be {'true or false' if kind is bool else kind.__name__}, not {value!r}")
    if choices and value not in choices:
        raise InputError(f"{path}: {key} is one of {', '.join(choices)}, not {value!r}")
    return value
