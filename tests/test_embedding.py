"""The encoder: same vectors as sentence-transformers, one text at a time in effect, and the cache."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dpsda import embedding
from dpsda.data import DatasetSpec, load
from dpsda.embedding import Encoder, _Cache, _width
from dpsda.errors import InputError
from tests.finetune.tiny import saved

MODEL = "embedded:all-minilm-l6-v2"


@pytest.fixture(scope="module")
def texts():
    """300 real texts, two of them beyond the model's limit of 256 tokens, and an empty one."""
    real = load(DatasetSpec.read("rotten_tomatoes"), "test").texts[:400]
    return ["", " ".join(real[:40]), " ".join(real[300:330]), *real[:297]]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    from dpsda.assets import resolve

    path = resolve(MODEL)  # before the cache folder moves
    monkeypatch.setenv("DPSDA_HOME", str(tmp_path))
    return path


@pytest.fixture(scope="module")
def encoders():
    return {dtype: Encoder(MODEL, device="cpu", dtype=dtype, cache=False) for dtype in ("float32", "bfloat16")}


@pytest.mark.parametrize(("dtype", "n"), [("bfloat16", 60), ("float32", 60)])
def test_a_text_does_not_see_the_others(encoders, texts, dtype, n):
    """Removing a record, a long one, and another order leave every other vector bit for bit as it was."""
    encoder, texts = encoders[dtype], texts[:n]
    vectors = encoder.embed(texts, private=True)
    assert vectors.shape == (n, encoder.dim) and vectors.dtype == np.float32
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(n)
    for rows in (shuffled[shuffled != 1], np.array([0]), np.array([1, 50])):
        assert np.array_equal(encoder.embed([texts[i] for i in rows], private=True), vectors[rows])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_up_to_four_cores_change_no_bit(encoders, texts, dtype, cores):
    """Nor does it matter how many batches there are for them."""
    encoder, texts, vectors = encoders[dtype], texts[2:22], {}
    for number in (1, 2, 4):
        cores(number)
        vectors[number] = encoder.embed(texts, private=True)
        assert np.array_equal(encoder.embed(texts[:1], private=True), vectors[number][:1])
    assert np.array_equal(vectors[1], vectors[2]) and np.array_equal(vectors[1], vectors[4])


def test_same_as_sentence_transformers(encoders, texts, folder):
    from sentence_transformers import SentenceTransformer

    texts = texts[:60]
    reference = SentenceTransformer(folder, device="cpu").encode(texts)
    np.testing.assert_allclose(encoders["float32"].embed(texts, private=False), reference, atol=1e-6)
    cosine = np.vecdot(encoders["bfloat16"].embed(texts, private=False), reference)
    assert cosine.min() > 0.999


def test_repeated_texts_are_embedded_once(encoders, texts, monkeypatch):
    encoder, seen = encoders["float32"], []
    real = encoder._embed
    monkeypatch.setattr(encoder, "_embed", lambda group, progress: seen.extend(group) or real(group, progress))
    vectors = encoder.embed([texts[5], texts[6], texts[5], texts[5]], private=False)
    assert seen == [texts[5], texts[6]]
    assert np.array_equal(vectors[0], vectors[2]) and np.array_equal(vectors[0], vectors[3])
    assert not np.array_equal(vectors[0], vectors[1])
    assert encoder.embed([], private=True).shape == (0, encoder.dim)


def test_cached_texts_are_not_embedded_again(folder, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "GROUP", 16)  # several shards
    encoder = Encoder(folder, device="cpu")
    vectors = encoder.embed(texts[3:43], private=True)
    monkeypatch.setattr(encoder, "_embed", lambda *_: pytest.fail("embedded again"))
    assert np.array_equal(encoder.embed(texts[42:2:-1], private=True), vectors[::-1])
    monkeypatch.undo()
    monkeypatch.setenv("DPSDA_HOME", str(tmp_path))
    again = Encoder(folder, device="cpu")  # another process's view
    monkeypatch.setattr(again, "_embed", lambda *_: pytest.fail("embedded again"))
    assert np.array_equal(again.embed(texts[3:43], private=True), vectors)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "embeddings").exists()  # public texts have another cache
    with pytest.raises(pytest.fail.Exception):
        again.embed(texts[:1], private=False)


def test_precomputed_texts_are_found_by_a_run(folder, texts, monkeypatch):
    """Stopped after two of five shards, the same command embeds the rest only; a large array is a file."""
    monkeypatch.setattr(embedding, "GROUP", 8)
    encoder, seen = Encoder(folder, device="cpu"), []
    real = encoder._embed

    def embed(group, progress):
        if len(seen) == 16:
            raise KeyboardInterrupt
        seen.extend(group)
        return real(group, progress)

    monkeypatch.setattr(encoder, "_embed", embed)
    with pytest.raises(KeyboardInterrupt):
        encoder.precompute(texts[3:43], private=True)
    again, rest = Encoder(folder, device="cpu"), []
    real = again._embed
    monkeypatch.setattr(again, "_embed", lambda group, progress: rest.extend(group) or real(group, progress))
    assert again.precompute([*texts[3:43], texts[3]], private=True) == 24 and seen + rest == texts[3:43]
    assert again.precompute(texts[3:43], private=True) == 0
    monkeypatch.setattr(embedding, "IN_MEMORY", 0)
    vectors = again.embed([*texts[3:43], texts[3]], private=True)
    assert isinstance(vectors, np.memmap) and len(rest) == 24
    monkeypatch.setattr(embedding, "IN_MEMORY", 1 << 30)
    assert np.array_equal(vectors, again.embed([*texts[3:43], texts[3]], private=True))


def test_another_model_or_dtype_has_another_cache(folder, tmp_path):
    import torch

    encoder = Encoder(folder, device="cpu", dtype="float32")
    encoder.embed(["a"], private=False)
    Encoder(folder, device="cpu", dtype="bfloat16").embed(["a"], private=False)
    changed = Encoder(folder, device="cpu", dtype="float32")
    with torch.no_grad():
        next(changed._model.parameters())[0, 0] += 1
    changed.embed(["a"], private=False)
    assert len(list((tmp_path / "embeddings").iterdir())) == 3


def test_the_secret_is_not_a_plain_hash(tmp_path):
    a, b = _Cache(tmp_path / "a", 3), _Cache(tmp_path / "b", 3)
    assert a.secret != b.secret and len(a.secret) == 32
    assert _Cache(tmp_path / "a", 3).secret == a.secret
    assert embedding._keys(["x"], a.secret) != embedding._keys(["x"], b.secret)


def keys(*numbers):
    return np.array([number.to_bytes(16, "big") for number in numbers], dtype="S16")


def vectors(*numbers):
    return np.array([[number] * 3 for number in numbers], dtype=np.float32)


def test_damaged_and_foreign_shards_are_ignored(tmp_path, caplog):
    cache = _Cache(tmp_path, 3)
    cache.add(keys(1, 2), vectors(1, 2))
    cache.add(keys(3, 4), vectors(3, 4))
    cache.add(keys(5), vectors(5))
    shards = sorted(tmp_path.glob("*.keys.npy"))
    cut = next(path for path in shards if np.load(path)[0] == keys(3)[0]).with_name
    name = next(path.name for path in shards if np.load(path)[0] == keys(3)[0]).removesuffix(".keys.npy")
    data = cut(f"{name}.vectors.npy").read_bytes()
    cut(f"{name}.vectors.npy").write_bytes(data[:-5])  # truncated
    name = next(path.name for path in shards if np.load(path)[0] == keys(5)[0]).removesuffix(".keys.npy")
    np.save(tmp_path / f"{name}.vectors.npy", vectors(5, 6))  # another number of rows
    (tmp_path / "foreign.keys.npy").write_bytes(b"not an array")
    np.save(tmp_path / "object.keys.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "half.vectors.npy").write_bytes(b"")  # killed before its keys were written
    found = _Cache(tmp_path, 3)
    assert found.knows(keys(2, 3, 5, 1)).tolist() == [True, False, False, True]
    found.fill(out := np.zeros((2, 3), np.float32), keys(2, 1))
    assert out.tolist() == vectors(2, 1).tolist()
    assert sum("not used" in record.message for record in caplog.records) == 4


def test_a_cache_of_another_dimension_is_one_line(tmp_path):
    _Cache(tmp_path, 3).add(keys(1), vectors(1))
    with pytest.raises(InputError, match="vectors of 3 numbers and this model gives 4") as error:
        _Cache(tmp_path, 4).knows(keys(1))
    assert "\n" not in str(error.value)


def test_processes_share_a_cache(tmp_path):
    """Four writers at once: every vector is there afterwards, and all agree on the secret."""
    code = (
        "import sys, numpy as np; from pathlib import Path; from dpsda.embedding import _Cache\n"
        "me = int(sys.argv[2]); cache = _Cache(Path(sys.argv[1]), 3); print(cache.secret.hex())\n"
        "for i in range(20):\n"
        "    n = me * 10 + i\n"
        "    cache.add(np.array([n.to_bytes(16, 'big')], 'S16'), np.full((1, 3), n, np.float32))\n"
        "    cache.knows(np.array([b'x'], 'S16'))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(4)]
    secrets = {worker.communicate()[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0] * 4 and len(secrets) == 1
    out = np.zeros((50, 3), np.float32)
    _Cache(tmp_path, 3).fill(out, keys(*range(50)))
    assert np.array_equal(out, vectors(*range(50)))


def test_widths_leave_room_and_little_waste():
    for count in range(1, 3000):
        width = _width(count, None)
        assert count < width <= max(count * 1.25, count + 8) and width % 8 == 0
        assert width <= _width(count + 1, None)
        assert _width(count, 256) == min(width, 256)


def test_the_bar_of_private_texts_shows_no_count(encoders, texts, capsys, monkeypatch):
    import tqdm

    real = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", lambda **options: real(**options | {"delay": 0, "mininterval": 0}))
    encoders["bfloat16"].embed(texts[3:40], private=True, desc="private")
    bar = capsys.readouterr().err
    assert "private [" in bar and "%" not in bar and "37" not in bar.split("[")[0] and "/37" not in bar


@pytest.mark.parametrize("name", ["no-such/encoder", "/no/such/folder"])
def test_a_model_that_is_not_there_is_one_line(name, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="embedded:all-minilm-l6-v2") as error:
        Encoder(name)
    assert "\n" not in str(error.value)


@pytest.fixture(params=["bert", "roberta", "gpt2", "opt", "llama"])
def greedy(request, tmp_path) -> str:
    """A tiny model of 64 positions that says to take 500 tokens of a text."""
    from sentence_transformers import SentenceTransformer

    tiny = SentenceTransformer(saved(request.param, tmp_path / "tiny"), device="cpu")
    tiny.save(str(tmp_path / request.param))
    settings = tmp_path / request.param / "sentence_bert_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "max_seq_length": 500}))
    return str(tmp_path / request.param)


def test_a_text_is_cut_where_the_positions_of_the_model_end(greedy):
    """A table of positions ends, in RoBERTa and its kin before its last row; rotary positions do not."""
    encoder = Encoder(greedy, device="cpu", cache=False)
    limit = {"roberta": 63, "llama": 500}.get(Path(greedy).name, 64)
    assert encoder._model.max_seq_length == limit
    long = " ".join(f"w{i % 30}" for i in range(600))
    cut = " ".join(long.split()[:limit])
    vectors = encoder.embed([long, cut, " ".join(long.split()[: limit - 1])], private=True)
    assert np.array_equal(vectors[0], vectors[1]) and not np.array_equal(vectors[0], vectors[2])


def test_the_longest_text_is_tried_at_the_start(bert, monkeypatch):
    """A model that fails on it alone would be stopped by one record, and tell that it is there."""
    from transformers import BertModel

    real = BertModel.forward

    def forward(self, input_ids, *args, **kwargs):
        if input_ids.shape[1] >= 64:
            raise IndexError("index out of range in self")
        return real(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(BertModel, "forward", forward)
    with pytest.raises(InputError, match=r"cannot load the encoder .*index out of range in self\); give"):
        Encoder(bert, device="cpu", cache=False)


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2"])
def test_a_model_without_a_token_to_pad_with_gets_one_that_changes_no_vector(kind, request, tmp_path):
    import shutil

    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / kind))
    texts = ["A thing", "w1 w2 w3 " * 7, "low"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token is None
    vectors = Encoder(str(folder), device="cpu", cache=False).embed(texts, private=True)
    for token in ("w9", "<unk>"):
        tokenizer.pad_token = token
        tokenizer.save_pretrained(folder)
        assert np.array_equal(Encoder(str(folder), device="cpu", cache=False).embed(texts, private=True), vectors)


def test_vectors_that_are_not_finite_are_no_vectors(bert, monkeypatch):
    from sentence_transformers.sentence_transformer.modules import Pooling

    real = Pooling.forward

    def forward(self, features, **more):
        features = real(self, features, **more)
        features["sentence_embedding"] = features["sentence_embedding"] / 0
        return features

    monkeypatch.setattr(Pooling, "forward", forward)
    with pytest.raises(InputError, match="not finite"):
        Encoder(bert, device="cpu", cache=False)


def test_a_device_whose_rows_differ_is_refused(encoders, monkeypatch):
    encoder = encoders["float32"]
    last = encoder._model[len(encoder._model) - 1]
    real = type(last).forward

    def forward(self, features, *args, **kwargs):
        features = real(self, features, *args, **kwargs)
        features["sentence_embedding"][-1, 0] += 1e-6
        return features

    monkeypatch.setattr(type(last), "forward", forward)
    with pytest.raises(InputError, match="equal rows"):
        encoder.embed(["a"], private=True)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_language_model_is_its_hidden_states_without_the_first(kind, request):
    """Bit for bit the same whatever else is embedded, as of every encoder; a text of one token keeps it."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = request.getfixturevalue(kind)
    encoder = Encoder(folder, device="cpu", dtype="float32", cache=False)
    texts = ["w1 w2 w3", "w4", "w5 w1 w2 w3 w9 w8 w7 w6 w5 w4 w3", "A thing number w3"]
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(texts, encoder.embed(texts, private=False), strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected = (states[1:] if len(states) > 1 else states).mean(dim=0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)
        assert np.array_equal(encoder.embed([text], private=False)[0], vector)
