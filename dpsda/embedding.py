"""Texts -> (N, D) float32 by a sentence-transformers encoder, each text once ever: vectors are kept on disk.

Why this does not call `SentenceTransformer.encode`: there a text shares its batch with whichever texts are next to it
in length, and its vector moves with their number and their padding (1e-7 in float32, 2e-3 in bfloat16). That is enough
to flip a near-tie, so one record could change another one's vote (DESIGN, rule 9). Here a text's number of tokens alone
decides the shape of its batch, and places that are not filled repeat the first row.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dpsda.assets import home
from dpsda.devices import check_room, multiplies_bfloat16, pick_device
from dpsda.errors import InputError
from dpsda.gguf import unpacked
from dpsda.libraries import check_whole, fit_vocabulary, loading
from dpsda.privacy.files import private_folder
from dpsda.threads import most_parts, side_by_side

GROUP = 8192  # texts between two writes to the cache: what a kill can lose, and the tokens held in memory
IN_MEMORY = 1 << 30  # bytes of vectors up to which they are held in memory
TOKENS = {"cpu": 512, "cuda": 1 << 16}  # tokens in a batch, filler included

REMEDY = "give a sentence-transformers folder or hub name, or embedded:all-minilm-l6-v2, which needs no model hub"

log = logging.getLogger(__name__)

# the bar of private texts has no count, no rate, no share and no end: each tells how many distinct ones there are, or,
# where users are protected, how many records
PRIVATE_BAR = "{desc} [{elapsed}]"


class Embeds(Protocol):
    """What others need of an encoder: texts -> (N, D) float32."""

    def embed(self, texts: Sequence[str], *, private: bool, desc: str = "") -> np.ndarray: ...


class Encoder:
    """One resident encoder: a hub name, a sentence-transformers folder, or `embedded:all-minilm-l6-v2`. Of a language
    model that was not made for this (`embedded:smollm2-135m-instruct`) it is the mean of the last hidden states without
    the first token's, which is alike in all texts.

    `dtype` is "float32", "bfloat16", or "auto": bfloat16 where the hardware multiplies it, as votes do not need more
    (benchmarks/README.md has what it costs and saves). Pooling and whatever follows it stay in float32.
    """

    def __init__(self, model: str, *, device: str = "auto", dtype: str = "auto", cache: bool = True):

        self.name = model
        self.device = pick_device(device)
        self.dtype = dtype if dtype != "auto" else "bfloat16" if multiplies_bfloat16(self.device) else "float32"
        with loading(f"the encoder {model!r}", REMEDY):
            self._model, self.language_model = _load(model, self.device, self.dtype)
            probe = self._tokenise(["a"])
            short = self._forward(probe, [0], _width(len(probe["input_ids"][0]), self._limit))
            self.dim: int = short.shape[1]
            # the longest text that there may be, or that is computed at once: one that fails would stop a run later
            most = self._rows(1)
            long = self._embed(["a " * min(self._limit or most, most)], lambda done: None)
        if not np.isfinite([short, long]).all():
            check_whole(model, {"missing_keys": _random(self._model), "mismatched_keys": ()})
            raise InputError(f"{model}: gives vectors that are not finite; take another encoder")
        self._caches: dict[bool, _Cache] | None = {} if cache else None

    def embed(self, texts: Sequence[str], *, private: bool, desc: str = "") -> np.ndarray:
        """The vectors of `texts`, (N, D) float32. `private` texts and public ones have separate caches.

        A vector is a function of its text: bit for bit the same whatever else is in `texts`, in whatever order. With a
        cache, an array above `IN_MEMORY` bytes is a file without a name, memory-mapped, in the cache's folder.
        """
        cache = self._cache(private)
        keys = _keys(texts, cache.secret if cache else b"")
        if cache is None:
            first, inverse = np.unique(keys, return_index=True, return_inverse=True)[1:]
            distinct = np.empty((len(first), self.dim), dtype=np.float32)
            groups = self._groups(texts, first, private, desc)
            for start, (_, vectors) in zip(range(0, len(first), GROUP), groups, strict=True):
                distinct[start : start + GROUP] = vectors
            return distinct[inverse]
        self._store(cache, keys, texts, private, desc)
        out = cache.array(len(texts))
        for start in range(0, len(texts), GROUP):
            cache.fill(out[start : start + GROUP], keys[start : start + GROUP])
        return out

    def check_room(self, texts: Sequence[str], *, private: bool) -> None:
        """InputError where the disk has no room for the vectors of `texts` that are not there yet."""
        cache = self._cache(private)
        if cache is not None:
            whole = len(texts) * self.dim * 4
            copy = whole if whole > IN_MEMORY else 0
            if shutil.disk_usage(cache.folder).free < whole + copy:  # else it need not be looked which are there
                missing = len(self.missing(texts, private=private)) * self.dim * 4
                check_room(cache.folder, missing + copy, "the vectors of the texts")

    def precompute(self, texts: Sequence[str], *, private: bool, desc: str = "") -> int:
        """Put the vectors of `texts` on disk for a later `embed`; how many distinct ones were not there yet."""
        cache = self._cache(private)
        if cache is None:
            raise ValueError("an encoder without a cache has nowhere to put them")
        return self._store(cache, _keys(texts, cache.secret), texts, private, desc)

    def probe(self) -> str:
        """A digest of the vectors of texts of many lengths: two machines that have the same one compute alike."""
        texts = ["a film " * length for length in (1, 5, 9, 14, 20, 35, 60, 100, 300)]
        return hashlib.blake2b(self._embed(texts, lambda done: None).tobytes(), digest_size=16).hexdigest()

    def missing(self, texts: Sequence[str], *, private: bool) -> np.ndarray:
        """The numbers of the distinct texts whose vectors are not on disk, ascending."""
        cache = self._cache(private)
        return np.arange(len(texts)) if cache is None else _missing(cache, _keys(texts, cache.secret))

    def _store(self, cache: _Cache, keys: np.ndarray, texts: Sequence[str], private: bool, desc: str) -> int:
        """Embed the texts whose keys the cache does not know, each once, in their order."""
        missing = _missing(cache, keys)
        for group, vectors in self._groups(texts, missing, private, desc):
            cache.add(keys[group], vectors)
        return len(missing)

    def _groups(
        self, texts: Sequence[str], numbers: np.ndarray, private: bool, desc: str
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The texts of these numbers, `GROUP` at a time: their numbers (n,), and their vectors (n, D) float32."""
        from tqdm import tqdm

        layout = PRIVATE_BAR if private else None
        desc, quiet = desc or "embed", not len(numbers)
        with tqdm(total=len(numbers), desc=desc, unit="text", bar_format=layout, disable=quiet, delay=1) as bar:
            for start in range(0, len(numbers), GROUP):
                group = numbers[start : start + GROUP]
                yield group, self._embed([texts[i] for i in group], bar.update)

    def _embed(self, texts: list[str], progress: Callable[[int], object]) -> np.ndarray:
        """(len(texts), D) float32, in batches of fixed shapes.

        Rows that fill their batch's width do not share it with padded ones: a model that finds no padding in a batch
        skips the mask and takes another kernel, so the batch-mates would decide.
        """
        tokens = self._tokenise(texts)
        lengths = [len(row) for row in tokens["input_ids"]]
        widths, counts = np.array([_width(length, self._limit) for length in lengths]), np.array(lengths)
        batches = []
        for width, full in sorted(set(zip(widths.tolist(), (counts == widths).tolist(), strict=True)), reverse=True):
            rows = np.flatnonzero((widths == width) & ((counts == width) == full))
            size = self._rows(width)
            batches += [(rows[start : start + size], width) for start in range(0, len(rows), size)]
        left = iter(batches)

        def vectors() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for batch, width in left:  # of which each thread takes the next one
                yield batch, self._forward(tokens, batch, width)

        out = np.empty((len(texts), self.dim), dtype=np.float32)
        for batch, found in side_by_side([vectors() for _ in range(most_parts(self.device))]):
            out[batch] = found
            progress(len(batch))
        return out

    def _forward(self, tokens: dict, batch: Sequence[int] | np.ndarray, width: int) -> np.ndarray:
        """(len(batch), D) float32: rows `batch` of `tokens`, padded to `width` tokens and to the rows of that width."""
        import torch

        size = self._rows(width)
        padded = [*batch, *[batch[0]] * (size - len(batch))]
        lists = {name: [rows[i] for i in padded] for name, rows in tokens.items() if isinstance(rows, list)}
        features = dict(self._model.tokenizer.pad(lists, padding="max_length", max_length=width, return_tensors="pt"))
        features = {name: tensor.to(self.device) for name, tensor in features.items()}
        features |= {name: value for name, value in tokens.items() if not isinstance(value, list)}
        with torch.inference_mode():
            for module in self._model:
                features = module(features)
                features = {name: _float32(value) for name, value in features.items()}
        out = features["sentence_embedding"][:, : self._model.truncate_dim].cpu().numpy()
        if (out[len(batch) :].view(np.uint32) != out[0].view(np.uint32)).any():  # bits: a NaN is no less equal
            raise InputError(
                f"{self.name} on {self.device}: equal rows of a batch get different vectors, so a vote could depend "
                f"on other records; use another device or dtype"
            )
        return out[: len(batch)]

    def _tokenise(self, texts: list[str]) -> dict:
        """The model's own preprocessing (prompt, truncation), without padding: lists of token ids, masks and so on."""
        model = self._model
        unpadded = {"text": {"padding": False}, "common": {"return_tensors": None}}
        prompt = model.prompts.get(model.default_prompt_name)
        return dict(model.preprocess(texts, prompt=prompt, processing_kwargs=unpadded))

    @property
    def tokenizer(self):
        """The tokenizer of the model, by which lengths are counted."""
        return self._model.tokenizer

    def _rows(self, width: int) -> int:
        return max(1, TOKENS["cuda" if self.device.startswith("cuda") else "cpu"] // width)

    @property
    def _limit(self) -> int | None:
        return self._model.max_seq_length

    @functools.cached_property
    def identity(self) -> str:
        """A name for all that makes a vector: a model under the same name with other weights has another one."""
        return f"{Path(self.name).name.replace(':', '-')}-{self.dtype}-{_identity(self._model)}"

    def _cache(self, private: bool) -> _Cache | None:
        if self._caches is None:
            return None
        if private not in self._caches:
            root = private_home() if private else home()
            self._caches[private] = _Cache(root / "embeddings" / self.identity, self.dim)
        return self._caches[private]


def private_home() -> Path:
    """The part of this project's cache that nobody else may read: what is computed from private data, for every run."""
    return private_folder(home() / "private")


class _Cache:
    """Vectors by the keyed hash of their text: shards `ID.keys.npy` (n,) S16 and `ID.vectors.npy` (n, D) float32.

    Shards are only ever added, under unique names; the keys are renamed into place last, so a shard with keys is
    whole, and processes that share the folder at most store a text twice. Vectors are memory-mapped.
    """

    def __init__(self, folder: Path, dim: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.dim = folder, dim
        self.secret = self._secret()
        self._shards: dict[str, np.ndarray | None] = {}  # the vectors; None is a shard to ignore
        self._parts: list[tuple[str, np.ndarray]] = []  # (shard, its keys)
        self._sorted = 0  # how many of `_parts` the index covers

    def knows(self, keys: np.ndarray) -> np.ndarray:
        """Which of the keys have a vector here, (len(keys),) bool."""
        self._refresh()
        if not self._parts:
            return np.zeros(len(keys), dtype=bool)
        return self._keys[self._find(keys)] == keys

    def fill(self, out: np.ndarray, keys: np.ndarray) -> None:
        """Write the vectors of the keys, all known, into the rows of `out`."""
        if not self.knows(keys).all():
            raise InputError(f"{self.folder} lost vectors while it was read: run the same command again")
        at = self._find(keys)
        part, row = self._part[at], self._row[at]
        for number in np.unique(part):
            here = np.flatnonzero(part == number)
            here = here[np.argsort(row[here])]  # read the file in its order
            vectors = self._shards[self._parts[number][0]]
            assert vectors is not None  # as its keys are a part
            out[here] = vectors[row[here]]

    def array(self, rows: int) -> np.ndarray:
        """(rows, D) float32 to be filled: in memory, or if it is large in a file that is gone when nobody holds it."""
        if not rows or rows * self.dim * 4 <= IN_MEMORY:
            return np.empty((rows, self.dim), dtype=np.float32)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and not a crash where it is written to
                os.posix_fallocate(file.fileno(), 0, rows * self.dim * 4)
            return np.memmap(file, dtype=np.float32, mode="w+", shape=(rows, self.dim))

    def _find(self, keys: np.ndarray) -> np.ndarray:
        return np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        name = uuid.uuid4().hex
        self._write(vectors).rename(self.folder / f"{name}.vectors.npy")
        self._write(keys).rename(self.folder / f"{name}.keys.npy")

    def _refresh(self) -> None:
        """Take in the shards that appeared since the last call, ours or another process's."""
        for path in sorted(self.folder.glob("*.keys.npy")):
            name = path.name.removesuffix(".keys.npy")
            if name not in self._shards:
                self._shards[name] = self._open(name)
        if self._sorted < len(self._parts):
            keys = np.concatenate([keys for _, keys in self._parts])
            order = np.argsort(keys, kind="stable")
            sizes = [len(keys) for _, keys in self._parts]
            self._keys = keys[order]
            self._part = np.repeat(np.arange(len(sizes)), sizes)[order]
            self._row = np.concatenate([np.arange(size) for size in sizes])[order]
            self._sorted = len(self._parts)

    def _open(self, name: str) -> np.ndarray | None:
        try:
            keys = np.load(self.folder / f"{name}.keys.npy", allow_pickle=False)
            vectors = np.load(self.folder / f"{name}.vectors.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            log.warning("%s: the shard %s is damaged and not used", self.folder, name)
            return None
        whole = keys.dtype == np.dtype("S16") and vectors.dtype == np.float32 and vectors.ndim == 2
        if not whole or keys.shape != vectors.shape[:1] or not len(keys):
            log.warning("%s: %s is not a shard of this cache and not used", self.folder, name)
            return None
        if vectors.shape[1:] != (self.dim,):
            raise InputError(
                f"{self.folder} holds vectors of {vectors.shape[-1]} numbers and this model gives {self.dim}: "
                f"remove that folder, or use the model that filled it"
            )
        self._parts.append((name, keys))
        return vectors

    def _secret(self) -> bytes:
        """The key of this cache's hashes: without it, a leaked index cannot be tested for a guessed text."""
        path = self.folder / "key.npy"
        if not path.exists():
            temporary = self._write(np.frombuffer(secrets.token_bytes(32), dtype=np.uint8))
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(temporary, path)
            temporary.unlink()
        return np.load(path, allow_pickle=False).tobytes()

    def _write(self, array: np.ndarray) -> Path:
        """A temporary file with `array`, safely on the disk, to be renamed into place."""
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        with open(temporary, "wb") as sink:
            np.save(sink, array, allow_pickle=False)
            sink.flush()
            os.fsync(sink.fileno())
        return temporary


def _missing(cache: _Cache, keys: np.ndarray) -> np.ndarray:
    """The first number of every distinct key that the cache does not know, ascending."""
    first = np.sort(np.unique(keys, return_index=True)[1])
    return first[~cache.knows(keys[first])]


def _load(name: str, device: str, dtype: str):
    """The model in evaluation mode: its transformer in `dtype`, what follows in float32; and whether it is a language
    model that was not made for this.

    No text of any length fails on it: what it has no rows for is not among its tokens, and a text is cut where its
    positions end.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from sentence_transformers.util import is_sentence_transformer_model

    settings = {"dtype": getattr(torch, dtype), "ignore_mismatched_sizes": True}
    source = unpacked(name)
    model = SentenceTransformer(source, device=device, trust_remote_code=False, model_kwargs=settings)
    if not isinstance(model[0], Transformer) or not hasattr(model.tokenizer, "pad"):
        raise InputError(f"the encoder {name!r} does not begin with a transformer over tokens; take one that does")
    with torch.no_grad():
        for parameter in map(model[0].auto_model.get_parameter, _random(model)):
            parameter.fill_(torch.nan)  # so that a vector that depends on it shows it; of a pooler most do not
    tokenizer, config = model.tokenizer, model[0].auto_model.config.get_text_config()
    if getattr(config, "vocab_size", None):  # not so where characters are hashed to rows
        fit_vocabulary(name, tokenizer, config.vocab_size)
    language_model = _is_language_model(config) and not is_sentence_transformer_model(source)
    if language_model:
        tokenizer.padding_side = "right"
        model[1] = Pooling(model[0].get_embedding_dimension(), "mean")
        model.insert(1, _without_first())
    if tokenizer.pad_token_id is None:  # any will do, as padding is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    positions = _positions(model[0].auto_model, getattr(config, "max_position_embeddings", None) or 0)
    if positions and (model.max_seq_length is None or model.max_seq_length > positions):
        model.max_seq_length = positions
    for module in list(model)[1:]:
        module.float()
    model.tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True  # we pad apart on purpose
    return model.eval(), language_model


def _is_language_model(config: Any) -> bool:
    names = getattr(config, "architectures", None) or ()
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _without_first():
    """A module that hides the first token from the pooling behind it, unless there is no other."""
    import torch

    class WithoutFirst(torch.nn.Module):
        def forward(self, features: dict) -> dict:
            mask = features["attention_mask"].clone()
            mask[:, 0] = (mask[:, 1:].sum(dim=1) == 0).to(mask.dtype)
            return {**features, "attention_mask": mask}

    return WithoutFirst()


def _random(model) -> list[str]:
    """The names of the transformer's parameters that no file held, or in another shape: transformers draws them."""
    named = model[0].auto_model.named_parameters()
    return [name for name, parameter in named if not getattr(parameter, "_is_hf_initialized", False)]


def _positions(transformer, most: int) -> int | None:
    """How many tokens the transformer's table of positions has room for, of whose rows the config tells `most`, or None
    if it has no table. RoBERTa and its kin do not use the rows up to the padding token's."""
    from torch import nn

    for name, module in transformer.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and ("pos" in last or last == "wpe") and module.num_embeddings >= most > 0:
            return most if module.padding_idx is None else most - module.padding_idx - 1
    return None


def _width(count: int, limit: int | None) -> int:
    """Tokens of the batches for texts of `count` tokens: the next of 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, ... above
    `count`, at most a quarter more of it, so that only a text at the model's limit fills its row."""
    step = max(8, 1 << max(count.bit_length() - 3, 0))
    width = (count // step + 1) * step
    return min(width, limit) if limit else width


def _keys(texts: Sequence[str], secret: bytes) -> np.ndarray:
    """(N,) S16: the keyed BLAKE2b of each text."""
    encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
    digests = [hashlib.blake2b(text, key=secret, digest_size=16).digest() for text in encoded]
    return np.frombuffer(b"".join(digests), dtype="S16")


def _identity(model) -> str:
    """A hash of all that makes a vector: the weights, the modules and their settings, the vocabulary, the prompt."""
    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    settings = (repr(model), model.truncate_dim, model.prompts.get(model.default_prompt_name))
    digest.update(repr((settings, sorted(model.tokenizer.get_vocab().items()))).encode())
    return digest.hexdigest()


def _float32(value):
    import torch

    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
