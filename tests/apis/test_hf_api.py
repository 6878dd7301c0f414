"""The engine against `model.generate` and transformers' processors, on tiny random models and the embedded one."""

import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from apis import hf_api
from apis.api import Prompt
from apis.decoding import Decoder, Request, Sampler
from apis.hf_api import EMBEDDED, HFAPI, split
from dpsda.errors import InputError

VOCABULARY = 48  # small, so that random models reach their stop token
CONTEXT = 96
WORDS = [f"w{i}" for i in range(VOCABULARY - 2)]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
)


def tiny(kind: str, folder) -> str:
    """A saved random model of `kind` whose words are w0, w1, ...; the chat template only goes with the Llama."""
    torch.manual_seed({"llama": 3, "gpt2": 5}[kind])
    common = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if kind == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=CONTEXT,
                initializer_range=0.4,
                **common,
            )
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, initializer_range=0.4, **common)
        )
    words = {"<end>": 0, "<unk>": 1} | {word: i + 2 for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )
    if kind == "llama":
        wrapped.chat_template = TEMPLATE
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    return tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("one"))


def engine(folder, **options) -> HFAPI:
    return HFAPI(folder, **{"device": "cpu", "dtype": "float32", "progress": False, **options})


def mixed(n: int) -> list[Prompt]:
    """Prompts of 1 to 30 words with caps of 1 to 20; most behind one long system text, some behind their own."""
    generator = torch.Generator().manual_seed(n)
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))  # noqa: E731
    words = lambda k: " ".join(WORDS[draw(0, len(WORDS))] for _ in range(k))  # noqa: E731
    head, shots = words(12), ((words(3), words(4)),)
    return [
        Prompt(words(draw(1, 31)), head if i % 5 else words(2), shots if i % 3 == 0 else (), draw(1, 21))
        for i in range(n)
    ]


def assert_like_generate(api: HFAPI, prompts: list[Prompt], answers: list[str], tolerance: float = 1e-4) -> int:
    """Compare with `model.generate` on each prompt alone, up to a tie of the two best logits; how many ended early."""
    reference = AutoModelForCausalLM.from_pretrained(api.model.config._name_or_path, dtype=torch.float32).eval()
    stopped = 0
    for request, answer in zip(api.requests(prompts), answers, strict=True):
        ids = torch.tensor([request.ids])
        out = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request.cap,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        wanted = out.sequences[0, ids.shape[1] :].tolist()
        stopped += len(wanted) < request.cap
        best = torch.cat(out.logits).topk(2).values
        for k, gap in enumerate((best[:, 0] - best[:, 1]).tolist()):
            if gap < tolerance:
                wanted = wanted[:k]
                answer = answer[: len(api.tokenizer.decode(wanted, skip_special_tokens=True))]
                break
        assert answer == api.tokenizer.decode(wanted, skip_special_tokens=True)
    return stopped


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_greedy_is_what_generate_gives_prompt_by_prompt(folder, batch):
    api, prompts = engine(folder, do_sample=False, batch_size=batch), mixed(40)
    stopped = assert_like_generate(api, prompts, api.generate(prompts, seed=0))
    assert 0 < stopped < len(prompts)  # both ways to end were seen


def test_greedy_penalty_is_what_generate_gives(folder):
    api, prompts = engine(folder, do_sample=False, repetition_penalty=1.3, batch_size=4), mixed(12)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for request, answer in zip(api.requests(prompts), api.generate(prompts, seed=0), strict=True):
        ids = torch.tensor([request.ids])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request.cap,
            do_sample=False,
            repetition_penalty=1.3,
        )
        assert answer == api.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_shared_prefix_changes_nothing(folder, monkeypatch):
    api, prompts = engine(folder, do_sample=False, batch_size=8), mixed(30)
    assert any(request.shared for request in api.requests(prompts))
    shared = api.generate(prompts, seed=0)
    monkeypatch.setattr("apis.hf_api.LEAST_SHARED", 10**9)
    assert not any(request.shared for request in api.requests(prompts))
    assert api.generate(prompts, seed=0) == shared


def test_what_a_group_shares_is_read_once_and_its_prompts_together(llama, monkeypatch):
    """Whatever the caps are, and the order in which the prompts come."""
    shots = [tuple((f"w{3 * g + k} w{k}", f"w{g} w{k}") for k in range(3)) for g in range(4)]
    prompts = [Prompt(f"w{i} w{i + 1}", "w40 w41", shots[i % 4], 1 + i * 7 % 20) for i in range(32)]
    api, read, seen = engine(llama, batch_size=64), Decoder.read, []
    monkeypatch.setattr(Decoder, "read", lambda *given: seen.append(len(given[1])) or read(*given))
    api.generate(prompts, seed=0)
    assert seen == [1, 8] * 4


def test_answers_do_not_depend_on_order(folder):
    api, prompts = engine(folder, do_sample=False, batch_size=8), mixed(30)
    assert api.generate(prompts[::-1], seed=0)[::-1] == api.generate(prompts, seed=0)


def test_on_more_cores_there_are_more_batches_and_the_same_answers(folder, cores, monkeypatch):
    prompts, run, batches = mixed(40), Decoder.run, []
    monkeypatch.setattr(
        Decoder, "run", lambda self, part, size: batches.append((len(part), size)) or run(self, part, size)
    )
    api = engine(folder, temperature=1.5, batch_size=12)
    cores(1)
    alone = api.generate(prompts, seed=3)
    cores(3)
    assert api.generate(prompts, seed=3) == alone == engine(folder, temperature=1.5).generate(prompts, seed=3)
    assert batches[:2] == [(1, 1), (40, 12)]  # the first is the trial of a model that was loaded
    parts = batches[2:5]
    assert sum(size for size, _ in parts) == 40 and min(parts)[0] > 1 and {size for _, size in parts} == {4}
    monkeypatch.setattr(HFAPI, "SMALL_BYTES", 1)
    del batches[:]
    assert api.generate(prompts, seed=3) == alone and batches == [(40, 12)]


def test_what_shares_a_prefix_stays_together_unless_it_is_much():
    few = [Request(range(100), 10, group, 80) for group in range(6) for _ in range(4)]
    much = [Request(range(20 + i % 7), 10, 9, 10) for i in range(60)]
    alone = [Request(range(30), 5 + i) for i in range(5)]
    requests = [*few, *much, *alone]
    lists = split(requests, 3)
    assert sorted(i for one in lists for i in one) == list(range(len(requests)))
    tokens = [sum(len(requests[i].ids) - requests[i].shared + requests[i].cap for i in one) for one in lists]
    assert max(tokens) - min(tokens) <= 40
    for group in range(6):
        assert sum(any(requests[i].group == group for i in one) for one in lists) == 1
    assert all(any(requests[i].group == 9 for i in one) for one in lists)
    assert split(few[:4], 3) == [[0, 1, 2, 3]] and split(requests, 1) == [list(range(len(requests)))]


def test_caps_and_count_of_tokens(llama):
    api = engine(llama, batch_size=4)
    api.stops = set()  # no way to end but the cap
    prompts = [Prompt("w1 w2", max_new_tokens=cap) for cap in (3, 1, 7, 5, 2, 9)]
    ids = [api.tokenizer(text)["input_ids"] for text in api.generate(prompts, seed=0)]
    assert all(len(row) <= prompt.max_new_tokens for row, prompt in zip(ids, prompts, strict=True))
    assert any(len(row) == prompt.max_new_tokens > 1 for row, prompt in zip(ids, prompts, strict=True))
    assert api.tokens_generated == sum(prompt.max_new_tokens for prompt in prompts)


def test_seeds_and_duplicates(llama):
    api = engine(llama, temperature=2.0, batch_size=8)
    prompts = [Prompt("w1 w2 w3", max_new_tokens=20)] * 20
    first = api.generate(prompts, seed=1)
    assert api.generate(prompts, seed=1) == first
    assert api.generate(prompts, seed=2) != first
    assert len(set(first)) > 10  # one prompt asked twenty times gives independent samples


def test_a_sampled_answer_is_a_matter_of_its_prompt_and_its_seeds(folder):
    api, prompts = engine(folder, temperature=1.5, top_p=1.0, batch_size=8), mixed(40)
    whole = api.generate(prompts, seed=5)
    for size in (1, 7, 40):
        other, answers = engine(folder, temperature=1.5, top_p=1.0, batch_size=size), {}
        for part in (range(0, 40, 3), range(1, 40, 3), range(38, 0, -3)):
            for place, answer in other.stream([prompts[i] for i in part], [(5, i) for i in part]):
                answers[part[place]] = answer
        assert [answers[i] for i in range(40)] == whole


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_the_least_and_the_greatest_random_number_draw_a_token_that_may_be_drawn(top_p):
    torch.manual_seed(0)
    logits = torch.randn(200, 60) * 4
    sampler = Sampler(temperature=1.0, top_k=50, top_p=top_p, repetition_penalty=1.0, do_sample=True)
    probabilities, ids = sampler.distribution(logits, None)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    assert torch.equal(sampler(logits, None, torch.zeros(200)), ids.gather(1, last)[:, 0])
    assert torch.equal(sampler(logits, None, torch.full((200,), 1 - 2.0**-53, dtype=torch.float64)), ids[:, 0])


def test_edges(llama):
    api = engine(llama)
    assert api.generate([], seed=0) == []
    assert len(api.generate([Prompt("w1", max_new_tokens=1)], seed=0)) == 1
    with pytest.raises(InputError, match="shorten"):
        api.generate([Prompt("w1 " * CONTEXT)], seed=0)
    with pytest.raises(InputError, match="at least one"):
        api.generate([Prompt("w1", max_new_tokens=0)], seed=0)
    with pytest.raises(InputError, match="temperature"):
        engine(llama, temperature=0.0)


def test_chat_and_plain_prompts(folder):
    api = engine(folder)
    prompt = Prompt("w1", "w2", (("w3", "w4"),), 4)
    [request] = api.requests([prompt])
    text = "<unk> w2 <unk> w3 <unk> w4 <unk> w1 <unk>" if api.tokenizer.chat_template else "w2 w3 w4 w1"
    assert api.tokenizer.decode(request.ids) == text


def test_system_turn_is_folded_where_the_template_refuses_it(llama):
    api = engine(llama)
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    api.tokenizer.chat_template = refuse + TEMPLATE
    assert api.render(Prompt("w1", "w2", (("w3", "w4"),))) == "user w2\n\nw3 assistant w4 user w1 assistant"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "nowhere.gguf", "no-such-owner/no-such-model"])
def test_a_model_that_is_not_there_names_the_embedded_one(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=EMBEDDED) as caught:
        HFAPI(name, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("top_k", "top_p", "penalty"), [(50, 1.0, 1.0), (5, 0.9, 1.0), (0, 0.7, 1.0), (20, 0.8, 1.4)])
def test_distribution_is_that_of_transformers(top_k, top_p, penalty):
    torch.manual_seed(0)
    logits, ids = torch.randn(16, 300) * 3, torch.randint(300, (16, 9))
    scores = TemperatureLogitsWarper(1.2)(ids, RepetitionPenaltyLogitsProcessor(penalty)(ids, logits))
    scores = TopKLogitsWarper(top_k)(ids, scores) if top_k else scores
    wanted = TopPLogitsWarper(top_p)(ids, scores).softmax(-1)
    options = {"temperature": 1.2, "top_k": top_k, "top_p": top_p, "repetition_penalty": penalty, "do_sample": True}
    seen = torch.zeros(16, 300, dtype=torch.bool).scatter_(1, ids, True)
    probabilities, tokens = Sampler(**options).distribution(logits, seen if penalty != 1 else None)
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    torch.testing.assert_close(torch.zeros(16, 300).scatter_(1, tokens, probabilities), wanted)


def test_draws_follow_the_distribution():
    """Pearson's chi-square over 50 tokens and 50,000 draws. The draws are seeded; over seeds, the threshold at six
    standard deviations of the Wilson-Hilferty normal approximation gives a false-alarm rate of about 1e-9.
    """
    torch.manual_seed(0)
    logits, draws = torch.randn(1, 60), 50_000
    sampler = Sampler(temperature=1.2, top_k=50, top_p=1.0, repetition_penalty=1.0, do_sample=True)
    probabilities, ids = sampler.distribution(logits, None)
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(1))
    counts = sampler(logits.expand(draws, -1), None, uniform).bincount(minlength=60)
    assert counts.sum() == counts[ids[0]].sum() == draws
    expected = probabilities[0] * draws
    statistic, freedom = float(((counts[ids[0]] - expected) ** 2 / expected).sum()), 49
    deviations = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert deviations < 6


def test_embedded_model_in_greedy_float32():
    api = engine(EMBEDDED, do_sample=False, batch_size=3)
    assert (api.tokenizer.bos_token, api.tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    prompts = [
        Prompt(text, "Answer with one short sentence.", max_new_tokens=cap)
        for text, cap in [("What is the capital of France?", 16), ("Name a fruit.", 12), ("Is a dull film good?", 8)]
    ] + [Prompt("Say hello.", max_new_tokens=8)]
    answers = api.generate(prompts, seed=0)
    assert "Paris" in answers[0]
    assert_like_generate(api, prompts, answers)


def test_the_number_format_is_the_one_that_is_fast(monkeypatch):
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(hf_api, "multiplies_bfloat16", lambda device, fast=fast: fast)
        assert hf_api.pick_dtype("auto", torch.device("cpu")) is dtype
    assert hf_api.pick_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16


class Gated(torch.nn.Module):
    """The feed-forward part of a model, with a scale that most do not have."""

    def __init__(self, scale):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            torch.nn.Linear(inputs, outputs) for inputs, outputs in ((32, 48), (32, 48), (48, 32))
        )
        self.scale = scale

    def forward(self, rows):
        return self.down_proj(torch.nn.functional.silu(self.gate_proj(rows) * self.scale) * self.up_proj(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1.1])
def test_layers_are_fused_where_that_computes_the_same(scale, dtype):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"layer": torch.nn.ModuleDict({"mlp": Gated(scale)})}).to(dtype)
    model.dtype = dtype
    rows = torch.randn(7, 32).to(dtype)
    before = model["layer"]["mlp"](rows).float()
    hf_api.pack(model)
    packed = model["layer"]["mlp"]
    # a processor that packs nothing of this format leaves the layers as they are
    packs = any(isinstance(module, hf_api.PackedLinear) for module in model.modules())
    assert isinstance(packed, hf_api.GatedLinear) == (packs and scale == 1.0)
    assert (packed(rows).float() - before).norm() <= 4 * torch.finfo(dtype).eps * before.norm()
