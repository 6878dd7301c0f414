"""The dense copy of the embedded GGUF file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors import safe_open

from dpsda.assets import resolve
from dpsda.errors import InputError
from dpsda.gguf import dense, main

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


def write_tiny(file: Path, without: str = "") -> bytes:
    """A random Llama of one layer whose tokens are letters, in float32, perhaps `without` one of its tensors."""
    writer = GGUFWriter(file, "llama")
    writer.add_vocab_size(28)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(1)
    writer.add_feed_forward_length(24)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<end>", *(chr(ord("a") + i) for i in range(26)), "ab"])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (28, 16), "output_norm": (16,), "blk.0.attn_norm": (16,), "blk.0.ffn_norm": (16,)}
    shapes |= {"blk.0.ffn_gate": (24, 16), "blk.0.ffn_up": (24, 16), "blk.0.ffn_down": (16, 24)}
    shapes |= {f"blk.0.attn_{part}": (16, 16) for part in ("q", "k", "v", "output")}
    for name, shape in shapes.items():
        if name != without:
            writer.add_tensor(f"{name}.weight", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.read_bytes()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DPSDA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_damaged_file_is_one_line_and_leaves_nothing(share, elsewhere, tmp_path, capfd):
    """The pointer of Git LFS, and files that are cut off: in the metadata, and in the tensors."""
    whole = write_tiny(tmp_path / "tiny.gguf")
    assert (dense(tmp_path / "tiny.gguf") / "model.safetensors").is_file()
    shutil.rmtree(elsewhere)
    file = tmp_path / "cut.gguf"
    file.write_bytes(whole[: int(share * len(whole))] or b"version https://git-lfs.github.com/spec/v1\nsize 9\n")
    with pytest.raises(InputError, match=r"cannot load the GGUF file .*cut\.gguf .*; it may be damaged or cut off"):
        dense(file)
    capfd.readouterr()
    assert main([str(file)]) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: cannot load the GGUF file") and said.count("\n") == 1
    assert not list(elsewhere.rglob("*"))


def test_a_file_that_lacks_a_tensor_is_one_line(elsewhere, tmp_path):
    write_tiny(tmp_path / "less.gguf", without="blk.0.attn_q")
    with pytest.raises(InputError, match=r"less\.gguf: its weights are not those .*\(.*q_proj\.weight is missing"):
        dense(tmp_path / "less.gguf")
    assert not list(elsewhere.rglob("*"))


def test_missing_file_is_one_line(tmp_path, capsys):
    with pytest.raises(InputError, match="no GGUF file"):
        dense(tmp_path / "nothing.gguf")
    assert main([str(tmp_path / "nothing.gguf")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
