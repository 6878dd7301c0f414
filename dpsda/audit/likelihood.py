"""What a generator trained under DP, whose weights are released, tells of each canary: what it gained by training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dpsda.attributes.read_off import codes_of
from dpsda.audit.bounds import Array
from dpsda.audit.canaries import Planted
from dpsda.embedding import PRIVATE_BAR, Encoder
from dpsda.models import load_model, most_tokens
from dpsda.runs import RunFolder, read_json, row_columns
from dpsda.stages import FINETUNE
from dpsda.tuning.adapter import load_adapter
from dpsda.tuning.generator import NextToken, cell_prefixes, encode, row_prefixes
from dpsda.tuning.tokens import Tokens

LONGEST = 512  # tokens of a text that are read


def scores(folder: RunFolder, config: dict[str, Any], planted: Planted, device: str) -> Array:
    """(rows,) the loss of each canary record under the pretrained model less that under the trained one: nats a token,
    by which texts that are hard for any model do not look like others (Carlini et al. 2022)."""
    config = config | read_json(folder.state / f"{FINETUNE}.json")  # Aug-PE may have gone on with another model
    model, tokenizer = load_model("AutoModelForCausalLM", config["model_type"])
    spec = planted.corpus.spec
    canaries = planted.canaries
    prefixes, which = cell_prefixes(spec, conditional=bool(config["conditional"] and spec.labels)), canaries.cells
    if row_columns(config):
        codes = codes_of(canaries, spec.attributes, lambda: Encoder(config["row_encoder"], device=device))
        prefixes, which = row_prefixes(spec, canaries.cells, codes)
    most = most_tokens(model, int(config["max_length"]))
    tokens = encode(canaries.texts, which, prefixes, tokenizer, most, tokenizer.pad_token_id)
    before = losses(model.to(device), tokens, device)
    if config["full"]:
        trained = load_model("AutoModelForCausalLM", str(folder.state / "model"))[0]
    else:
        trained = load_adapter(model, folder.state / "adapter")
    return before - losses(trained.to(device), tokens, device)


def knows(name: str, texts: Sequence[str], device: str) -> Array:
    """(n,) how likely each text is to a pretrained model, in nats a token. One that has seen a text before knows it."""
    model, tokenizer = load_model("AutoModelForCausalLM", name)
    most = most_tokens(model, LONGEST)
    tokens = encode(texts, np.zeros(len(texts), dtype=np.int64), [""], tokenizer, most, tokenizer.pad_token_id)
    return -losses(model.to(device), tokens, device)


def losses(model: torch.nn.Module, tokens: Tokens, device: str) -> Array:
    """(rows,) the mean loss of each text, in nats a token."""
    from tqdm import tqdm

    model.eval()
    loss, found = NextToken(model), np.zeros(len(tokens))
    with torch.inference_mode():
        for row in tqdm(range(len(tokens)), desc="likelihood", bar_format=PRIVATE_BAR, delay=1, leave=False):
            batch = {name: tensor.to(device) for name, tensor in tokens.batch(np.array([row])).items()}
            found[row] = float(loss(batch))
    return found
