"""What a model is told by: its files, wherever they lie."""

import shutil

from dpsda.models import identity


def test_a_model_is_its_files_and_not_their_place(tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    (one / "config.json").write_text("{}")
    (one / "model.safetensors").write_bytes(b"weights")
    two = shutil.copytree(one, tmp_path / "elsewhere" / "two")
    (two / "README.md").write_text("of no matter")
    assert identity(str(one)) == identity(str(two))
    (two / "model.safetensors").write_bytes(b"others")
    assert identity(str(one)) != identity(str(two))

    file = tmp_path / "model.gguf"
    file.write_bytes(b"packed")
    before = identity(str(file))
    shutil.move(file, two / "model.gguf")
    assert identity(str(two / "model.gguf")) == before
    (two / "model.gguf").write_bytes(b"other")
    assert identity(str(two / "model.gguf")) != before

    assert identity("gpt2") == identity("gpt2") != identity("gpt2-large")
