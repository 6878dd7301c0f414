"""Hugging Face causal language models in this process."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer

from apis.api import OnAnswer, Prompt, TextAPI
from apis.decoding import ATTENTION, Decoder, Request, Sampler
from dpsda.assets import resolve
from dpsda.devices import multiplies_bfloat16, pick_device
from dpsda.errors import InputError
from dpsda.gguf import unpacked
from dpsda.libraries import check_no_adapter, check_whole, loading
from dpsda.threads import most_parts, side_by_side

EMBEDDED = "embedded:smollm2-135m-instruct"
REMEDY = f"give the folder of a whole model, a .gguf file or a hub name; {EMBEDDED} needs no hub"
PACKED_FOR = 128  # rows that packed weights are laid out for: a full batch on a CPU
LEAST_PART = 8  # requests that are worth a batch of their own beside another one
LEAST_SHARED = 4  # a prefix is read once where at least this many prompts share at least this many tokens


class HFAPI(TextAPI):
    """A causal model, given as `embedded:NAME`, a folder, a .gguf file or a name on the hub.

    `device` and `dtype` are torch names; "auto" takes the GPU if there is one, and bfloat16 where it is fast.
    `top_p` 1 and `top_k` 0 are off. `batch_size` rows are decoded at a time; None fits the batch into `CACHE_BYTES`.
    """

    tokens_generated = 0  # over the life of the engine, stop tokens included
    SMALL_BYTES = 2**30  # of weights
    CACHE_BYTES = 2**30  # for keys and values on a CPU; a GPU gives half of what is free

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        do_sample: bool = True,
        batch_size: int | None = None,
        progress: bool = True,
    ):
        self.name, self.batch_size, self.progress = model, batch_size, progress
        self.sampling = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "repetition_penalty": repetition_penalty,
            "do_sample": do_sample,
        }
        if do_sample and temperature <= 0:
            raise InputError(f"temperature {temperature} is not positive; for the likeliest token use do_sample=False")
        self.device = torch.device(pick_device(device))
        self.model, self.tokenizer = load(model, self.device, pick_dtype(dtype, self.device))
        stops = self.model.generation_config.eos_token_id
        self.stops = {self.tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
        self._folds: dict[tuple, bool] = {}  # by the template and the shape of a conversation
        with loading(f"the model {model!r}", REMEDY):
            [request] = self.requests([Prompt("Write a text.")])
            self._try(replace(request, ids=request.ids[-2:]))  # two are enough for what fails in a forward pass alone

    def check(self, prompt: Prompt) -> None:
        """InputError if this model cannot answer `prompt`: one token of an answer is drawn, and dropped."""
        [request] = self.requests([prompt])
        with loading(f"the model {self.name!r}", REMEDY):
            self._try(request)

    def _try(self, request: Request) -> None:
        _first_token(self.name, self.model, replace(request, cap=1), self.stops, Sampler(**self.sampling))

    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        answers: list[str | None] = [None for _ in prompts]
        start, before = time.perf_counter(), self.tokens_generated
        quiet = not (self.progress and prompts)
        with tqdm(total=len(prompts), unit="text", desc="generate", disable=quiet, leave=False) as bar:
            for i, answer in self.stream(prompts, [(seed, number) for number in range(len(prompts))]):
                answers[i] = answer
                on_answer(i, answer)
                bar.set_postfix_str(
                    f"{(self.tokens_generated - before) / (time.perf_counter() - start):.0f} tokens/s", refresh=False
                )
                bar.update()
        return answers

    def stream(self, prompts: Sequence[Prompt], draws: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, str]]:
        """The place of a prompt and its answer, in the order in which the answers are complete.

        `draws` are the seeds of each prompt's own randomness: but for the rounding of the model's arithmetic, an answer
        depends on its prompt and its seeds, and neither on the other prompts nor on the size of the batch.
        """
        if not prompts:
            return
        requests = [replace(r, draws=own) for r, own in zip(self.requests(prompts), draws, strict=True)]
        decoder = Decoder(self.model, self.stops, Sampler(**self.sampling))
        shares = split(requests, self.parts(len(requests)))
        batch = max(1, (self.batch_size or self.fit(requests, len(shares))) // len(shares))

        def answers(share: list[int]) -> Iterator[tuple[int, list[int]]]:
            for i, answer in decoder.run([requests[i] for i in share], batch):
                yield share[i], answer

        for i, answer in side_by_side([answers(share) for share in shares]):
            self.tokens_generated += min(len(answer) + 1, requests[i].cap)
            yield i, self.tokenizer.decode(answer, skip_special_tokens=True)

    def requests(self, prompts: Sequence[Prompt]) -> list[Request]:
        """Tokens of every prompt, and how many of them it shares with all prompts of the same system and shots.

        Raises InputError for a prompt that does not fit, or has a token that the model does not know.
        """
        chat = bool(self.tokenizer.chat_template)
        texts = [self.render(prompt) if chat else plain(prompt) for prompt in prompts]
        ids = self.tokenizer(texts, add_special_tokens=not chat)["input_ids"]
        blank = [t for t in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, *self.stops) if t is not None][
            :1
        ]
        ids = [row or blank for row in ids]
        context, known = context_length(self.model.config), self.model.get_input_embeddings().weight.shape[0]
        for i, (row, prompt) in enumerate(zip(ids, prompts, strict=True)):
            if prompt.max_new_tokens < 1:
                raise InputError(f"prompt {i} asks for {prompt.max_new_tokens} new tokens; ask for at least one")
            if not row:
                raise InputError(f"prompt {i} is empty, and {self.name} has no token to begin with; take another model")
            if max(row) >= known:
                raise InputError(
                    f"prompt {i} has the token {max(row)}, and {self.name} has rows for {known}: its tokenizer belongs "
                    "to another model; take both from one place"
                )
            if len(row) >= context:
                raise InputError(
                    f"prompt {i} has {len(row)} tokens, but {self.name} holds {context} with the answer: shorten it"
                )
        members = defaultdict(list)
        for i, prompt in enumerate(prompts):
            members[prompt.system, prompt.shots].append(i)
        groups, shared = [-1] * len(ids), [0] * len(ids)
        for group, rows in enumerate(members.values()):
            # one token of each prompt is left to be read at its own row
            common = min(common_length([ids[i] for i in rows]), min(len(ids[i]) for i in rows) - 1)
            if min(len(rows), common) >= LEAST_SHARED:
                for i in rows:
                    groups[i], shared[i] = group, common
        # an answer that would run over the end of the context is cut there
        caps = [min(prompt.max_new_tokens, context - len(row)) for row, prompt in zip(ids, prompts, strict=True)]
        return [Request(ids[i], caps[i], groups[i], shared[i]) for i in range(len(ids))]

    def render(self, prompt: Prompt) -> str:
        """The prompt as the model's chat template has it; some know no system turn, which then opens the first request.

        Which do is found out once for each shape of a conversation.
        """
        shape = str(self.tokenizer.chat_template), bool(prompt.system), len(prompt.shots)
        if shape not in self._folds:
            self._folds[shape] = self._needs_folding(bool(prompt.system), len(prompt.shots))
        return self._apply(folded(prompt) if self._folds[shape] else prompt)

    def _apply(self, prompt: Prompt) -> str:
        apply: Callable = self.tokenizer.apply_chat_template
        chat = [{"role": role, "content": content} for role, content in prompt.turns()]
        return apply(chat, tokenize=False, add_generation_prompt=True)

    def _needs_folding(self, system: bool, shots: int) -> bool:
        """Whether the template refuses or leaves out a system turn. InputError if it fails, or leaves out another one.

        It is asked with made-up turns: what it raises may quote them.
        """

        def lost(prompt: Prompt) -> list[str]:
            text = " ".join(self._apply(prompt).split())
            return [role for role, content in prompt.turns() if " ".join(content.split()) not in text]

        worked = tuple((f"Request {n}.", f"Answer {n}.") for n in range(shots))
        made_up = Prompt("What is asked.", "How to answer." if system else "", worked)
        if system:
            with contextlib.suppress(Exception):  # most raise an error for what they do not know
                if not lost(made_up):
                    return False
        with loading(f"the chat template of {self.name!r}", "take a model with another template"):
            left_out = lost(folded(made_up))
        if left_out:
            raise InputError(
                f"{self.name}: its chat template leaves out a turn of the {left_out[0]} in a conversation with "
                f"{shots} worked examples; take a model with another template"
            )
        return system

    def parts(self, requests: int) -> int:
        """Into how many batches so many requests are best cut. Of a large model each would read all the weights."""
        small = weight_bytes(self.model) <= self.SMALL_BYTES
        return max(1, min(most_parts(self.device.type), requests // LEAST_PART)) if small else 1

    def fit(self, requests: Sequence[Request], parts: int) -> int:
        """How many rows of the longest request the memory for keys and values holds, up to what still gains speed in so
        many batches."""
        row = self.token_bytes * max(len(r.ids) + r.cap for r in requests)
        memory = torch.cuda.mem_get_info(self.device)[0] // 2 if self.device.type == "cuda" else self.CACHE_BYTES
        return max(1, min(memory // row, parts * (512 if self.device.type == "cuda" else PACKED_FOR)))

    @property
    def token_bytes(self) -> int:
        """The bytes of the keys and values of one token."""
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * config.num_hidden_layers * heads * size * self.model.dtype.itemsize


def common_length(rows: list[list[int]]) -> int:
    """How many leading tokens all rows share: the first and the last in sorted order differ the earliest."""
    first, last = min(rows), max(rows)
    return next((k for k, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def split(requests: Sequence[Request], parts: int) -> list[list[int]]:
    """The numbers of the requests in so many lists of about the same work, or fewer. A group stays together, unless it
    is so large that reading its prefix once a list is little."""
    groups = defaultdict(list)
    for i, request in enumerate(requests):
        groups[request.group].append(i)
    pieces: dict[tuple[int, ...], int] = {}  # and the tokens of each
    for group, members in groups.items():
        apart = group < 0 or len(members) >= parts * LEAST_PART
        for piece in zip(members) if apart else [tuple(members)]:
            pieces[piece] = sum(len(requests[i].ids) - requests[i].shared + requests[i].cap for i in piece)
    lists: list[list[int]] = [[] for _ in range(parts)]
    tokens = [0] * parts
    for piece in sorted(pieces, key=pieces.__getitem__, reverse=True):
        least = tokens.index(min(tokens))
        lists[least] += piece
        tokens[least] += pieces[piece]
    return [sorted(one) for one in lists if one]


def folded(prompt: Prompt) -> Prompt:
    """The prompt with its system turn at the head of the first request."""
    if not prompt.system:
        return prompt
    if not prompt.shots:
        return replace(prompt, system="", text=f"{prompt.system}\n\n{prompt.text}")
    (request, answer), *rest = prompt.shots
    return replace(prompt, system="", shots=((f"{prompt.system}\n\n{request}", answer), *rest))


def plain(prompt: Prompt) -> str:
    """The prompt of a model without a chat template: all its parts, a line each."""
    return "\n".join(content for _, content in prompt.turns() if content)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype):
            raise InputError(f"{name!r} is not a torch dtype; use auto, float32, bfloat16 or float16")
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if multiplies_bfloat16(device.type) else torch.float32


def context_length(config) -> int:
    """Tokens a row may hold: positions the model knows, and the window within which all layers see everything."""
    config = config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None)]
    if getattr(config, "use_sliding_window", True):
        limits.append(getattr(config, "sliding_window", None))
    return min((limit for limit in limits if limit), default=2**31)


def load(name: str, device: torch.device, dtype: torch.dtype):
    """The model, ready to decode, and its tokenizer."""
    source = _source(name)
    with loading(f"the model {name!r}", REMEDY):
        _config(name, source)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation=ATTENTION,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        model, missing = loaded
        check_whole(name, missing)
        model = model.to(device).eval()
        if device.type == "cpu" and dtype in (torch.float32, torch.bfloat16):
            pack(model)
    return model, tokenizer


def check_decodable(name: str) -> None:
    """The InputError that loading the model for decoding would raise, as far as it shows without its weights."""
    source = _source(name)
    with loading(f"the model {name!r}", REMEDY):
        config = _config(name, source)
        with torch.device("meta"):  # tensors with a shape and without numbers; some layers take bfloat16 alone there
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16, attn_implementation=ATTENTION, trust_remote_code=False
            ).eval()
        sampler = Sampler(temperature=1.0, top_k=1, top_p=1.0, repetition_penalty=1.0, do_sample=True)
        with contextlib.suppress(RuntimeError):  # the token that was drawn has no number, and it is the end of it
            _first_token(name, model, Request([0, 0], 1), set(), sampler)


def _source(name: str) -> str:
    """Where the model is loaded from: a folder, or its name on the hub. InputError if it is a path to nothing."""
    source = resolve(name)
    local = Path(source).expanduser()
    if local.exists():
        return unpacked(name)
    if local.suffix == ".gguf" or source.startswith((".", "~")) or local.is_absolute() or source.count("/") > 1:
        raise InputError(f"no model at {name}; {EMBEDDED} comes from the package index and needs no hub")
    return source


def _config(name: str, source: str):
    """The configuration of a model. InputError if the decoder cannot run its kind, before gigabytes are read."""
    check_no_adapter(name, source)
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if not getattr(kind, "_supports_attention_backend", True):
        raise InputError(f"{name} is a {config.model_type}, whose attention cannot be batched here; serve it instead")
    return config


def _first_token(name: str, model, request: Request, stops: set[int], sampler: Sampler) -> None:
    try:
        list(Decoder(model, stops, sampler).run([request], 1))
    except InputError as error:  # from a layer of the model, which does not know its name
        raise InputError(f"{name}: {error}; serve it instead") from None


class PackedLinear(torch.nn.Module):
    """A linear layer for inference on a CPU, its weight kept only as the matrix product wants it laid out.

    `torch.nn.Linear` lays it out again in every call, which at decoding's few rows costs a fifth of the product.
    """

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        self.bias, self.in_features, self.out_features = linear.bias, linear.in_features, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), PACKED_FOR)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")


class GatedLinear(torch.nn.Module):
    """down(silu(gate(x)) * up(x)) of packed layers: the feed-forward part of most models.

    Silu and product are done as the matrix products write their results, which saves three walks through them.
    """

    def __init__(self, gate: PackedLinear, up: PackedLinear, down: PackedLinear):
        super().__init__()
        self.gate, self.up, self.down = gate, up, down

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        linear = torch.ops.mkldnn._linear_pointwise
        gated = linear(rows, self.gate.packed, self.gate.bias, "swish", [], "")
        return self.down(linear.binary(rows, gated, self.up.packed, self.up.bias, "mul"))


def weight_bytes(model: torch.nn.Module) -> int:
    """The size of all weights, packed ones too."""
    packed = (module.packed for module in model.modules() if isinstance(module, PackedLinear))
    return sum(weight.nbytes for weight in (*model.parameters(), *packed))


def gated(module: torch.nn.Module, dtype: torch.dtype) -> GatedLinear | None:
    """What computes the same as `module` with its parts packed; None where it is made of others, or computes with them
    something else, which is seen on made-up rows."""
    parts = [getattr(module, f"{name}_proj", None) for name in ("gate", "up", "down")]
    packed = [part for part in parts if isinstance(part, PackedLinear)]
    if len(packed) < len(parts):
        return None
    fused = GatedLinear(*packed)
    rows = torch.randn(4, packed[0].in_features, generator=torch.Generator().manual_seed(0)).to(dtype)
    own, other = module(rows).float(), fused(rows).float()
    return fused if (own - other).norm() <= 4 * torch.finfo(dtype).eps * own.norm() else None


def pack(model: torch.nn.Module) -> None:
    """Replace the linear layers of `model` by packed ones, and what is made of them by what computes the same in fewer
    steps, where this build of torch and this processor can."""
    if not torch.backends.mkldnn.is_available():
        return
    if model.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is torch.nn.Linear:
                setattr(module, name, PackedLinear(child))
    with torch.inference_mode():
        for module in list(model.modules()):
            for name, child in module.named_children():
                if (fused := gated(child, model.dtype)) is not None:
                    setattr(module, name, fused)
