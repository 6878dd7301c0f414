"""The dense copy of the embedded GGUF file."""

from pathlib import Path

import pytest
from safetensors import safe_open

from apis.gguf import dense, main
from dpsda.assets import resolve
from dpsda.errors import InputError

EMBEDDED = "embedded:smollm2-135m-instruct"


def test_copy_is_dense_complete_and_written_once(capsys):
    folder = dense(Path(resolve(EMBEDDED)))
    assert {"config.json", "tokenizer.json", "chat_template.jinja"} <= {file.name for file in folder.iterdir()}
    with safe_open(folder / "model.safetensors", "pt") as weights:
        slices = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
        assert {part.get_dtype() for part in slices} == {"BF16"}
        sizes = [part.get_shape() for part in slices]
    assert sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in sizes) == 134_515_008
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert main([EMBEDDED]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_missing_file_is_one_line(tmp_path, capsys):
    with pytest.raises(InputError, match="no GGUF file"):
        dense(tmp_path / "nothing.gguf")
    assert main([str(tmp_path / "nothing.gguf")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
