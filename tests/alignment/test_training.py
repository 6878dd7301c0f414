"""Fine-tuning, reward model and policy gradient on a tiny model, and what a kill leaves of a training."""

import json
import math
import os
import signal
import subprocess
import time

import pytest
import torch

from dpsda.alignment import rlhf, sft
from dpsda.alignment.models import load, with_adapter, write_merged
from dpsda.alignment.options import PolicyOptions
from dpsda.errors import InputError
from tests.alignment.conftest import PAIRS, as_a_step, command, environment, write_pairs


def tensors(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_the_loss_is_over_the_answers_only(tiny, training, tmp_path, monkeypatch):
    """The tokens with a label are those of the answer and its end, and padding has none; over the whole text, as
    `completion_only_loss=False` has it, the same check fails."""

    def masked(made) -> bool:
        right = []
        batch = made.data_collator([made.train_dataset[i] for i in range(4)])
        for row, (ids, labels) in enumerate(zip(batch["input_ids"], batch["labels"], strict=True)):
            text = made.processing_class.decode(ids[labels != -100])
            right.append(
                text == f"{pairs[row][1]} <end>" and bool((ids[labels != -100] == labels[labels != -100]).all())
            )
        return all(right)

    pairs = [("w1 w2 w3", "w4"), ("w5", "w6 w7 w8 w9"), ("w1", "w2"), ("w3 w3 w3 w3 w3", "w1 w0")]
    assert masked(sft.trainer(pairs, training(), 0, tmp_path / "a"))
    import trl

    real = trl.SFTConfig
    monkeypatch.setattr(trl, "SFTConfig", lambda **more: real(**{**more, "completion_only_loss": False}))
    assert not masked(sft.trainer(pairs, training(), 0, tmp_path / "b"))


def test_the_instruction_has_no_part_in_the_loss(tiny, training, tmp_path):
    """The trainer's own loss is the mean over answer tokens of the model's, computed here by hand."""
    made = sft.trainer(PAIRS[:4], training(lora_dropout=0.0), 0, tmp_path)
    batch = made.data_collator([made.train_dataset[i] for i in range(4)])
    made.model.eval()
    with torch.inference_mode():
        loss = float(made.compute_loss(made.model, dict(batch)))
        logits = made.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    there = batch["labels"][:, 1:] != -100
    assert int(there.sum()) == 4 * 3  # two words and the end
    by_hand = torch.nn.functional.cross_entropy(logits[there], batch["input_ids"][:, 1:][there])
    assert loss == pytest.approx(float(by_hand), rel=1e-4)


def test_fine_tuning_lowers_the_loss_and_leaves_an_adapter(tiny, training, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    facts = sft.finetune(PAIRS, training(), 0, tmp_path, "arm")
    assert facts["steps"] == 40 and facts["last_epoch_loss"] < 0.5 * facts["first_epoch_loss"]
    assert not cache.exists()  # texts are not copied to a place that outlives the run
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert "/" not in config["base_model_name_or_path"]
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    merged = write_merged(tiny, tmp_path / "adapter", tmp_path / "merged", training())
    whole, tokenizer = load(str(merged), training())
    both = with_adapter(load(tiny, training())[0], tmp_path / "adapter")
    ids = torch.tensor([tokenizer("<user> w1 w2 <end> <assistant>")["input_ids"]])
    with torch.inference_mode():
        torch.testing.assert_close(whole(input_ids=ids).logits, both(input_ids=ids).logits, atol=1e-4, rtol=1e-4)


def test_a_model_without_the_layers_names_those_it_has(tiny, training, tmp_path):
    with pytest.raises(InputError, match=r"no linear module c_attn.*down_proj.*q_proj"):
        sft.trainer(PAIRS, training(lora_targets=["c_attn"]), 0, tmp_path)


def test_no_adapter_is_put_on_a_head(tiny, training, tmp_path):
    """It may be one with the embeddings, which a merge would change."""
    for name in ("lm_head", "model.lm_head"):
        with pytest.raises(InputError, match=rf"no linear module {name}; --lora_targets takes of: (?!.*lm_head)"):
            sft.trainer(PAIRS, training(lora_targets=[name]), 0, tmp_path)


def test_answers_beyond_the_longest_text(tiny, training, tmp_path):
    with pytest.raises(InputError, match="--max_length"):
        sft.trainer(PAIRS, training(max_length=3), 0, tmp_path)


@pytest.fixture
def rewarded(tiny, training, tmp_path):
    """A reward model that has learned to prefer answers of w30 to answers of w31, and what it said of its training."""
    chosen = [(text, "w30 w30 w30", "w31 w31 w31") for text, _ in PAIRS]
    facts = rlhf.reward_model(chosen, training(epochs=10), 0, tmp_path / "reward", "reward")
    return tmp_path / "reward" / "adapter", facts


def test_the_reward_model_prefers_what_was_chosen(tiny, training, rewarded):
    """Of instructions that it did not see, too; the untrained one does not prefer it everywhere."""
    adapter, facts = rewarded
    assert facts["accuracy"] > 0.95 and facts["pairs"] == len(PAIRS)

    def margins(model, tokenizer):
        found = []
        for text in ("w35 w2", "w12 w12 w12", "w0"):
            turns = [rlhf._turns(True, text, f"{word} {word}") for word in ("w30", "w31")]
            rows = tokenizer.apply_chat_template(turns, tokenize=False)
            batch = tokenizer(rows, return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.inference_mode():
                scores = model(**batch).logits[:, 0]
            found.append(float(scores[0] - scores[1]))
        return found

    trained, tokenizer = rlhf.load_reward(tiny, adapter, training())
    assert min(margins(trained, tokenizer)) > 1
    assert min(margins(*load(tiny, training(), reward=True))) < 1


def test_steps_of_the_policy_change_it_towards_reward(tiny, training, rewarded, tmp_path):
    """From an adapter: it changes, moves to words of reward, and the start lies where it was."""
    sft.finetune(PAIRS, training(epochs=1), 0, tmp_path / "sft", "arm")
    start = tensors(tmp_path / "sft" / "adapter")
    learning = PolicyOptions(
        "", str(rewarded[0]), reward_model=tiny, adapter=str(tmp_path / "sft" / "adapter"), length=6
    )
    options = training(max_steps=15, batch_size=16, learning_rate=2e-2)
    texts = [text for text, _ in PAIRS]
    facts = rlhf.policy(texts, options, learning, 0, tmp_path / "policy", "policy")
    assert facts["steps"] == 15 and facts["last_reward"] > facts["first_reward"]
    end = tensors(tmp_path / "policy" / "adapter")
    assert end.keys() == start.keys() and any(not torch.equal(end[name], start[name]) for name in end)
    assert all(torch.equal(tensors(tmp_path / "sft" / "adapter")[name], start[name]) for name in start)
    log = [json.loads(line) for line in (tmp_path / "policy" / "log.jsonl").read_text().splitlines()]
    # without dropout the first update sees the probabilities that the answers were drawn with
    assert log[0]["clip_ratio/region_mean"] == 0 and math.isfinite(log[-1]["kl"])


def test_a_policy_needs_whole_groups(tiny, training, tmp_path):
    learning = PolicyOptions("", "r", generations=4)
    for batch, texts, message in ((6, ["a"] * 9, "multiple of --generations"), (16, ["a"] * 3, "fewer")):
        with pytest.raises(InputError, match=message):
            rlhf.policy(texts, training(batch_size=batch), learning, 0, tmp_path, "policy")


def test_a_killed_training_goes_on_from_its_last_whole_checkpoint(tiny, run, align):
    """SIGKILL, and a checkpoint that a kill cut off: the same command ends with the same number of steps."""
    pairs = as_a_step(write_pairs(run / "alignment" / "pairs" / "answers.csv"))
    words = (
        "sft",
        "--pairs",
        pairs,
        "--result_folder",
        run,
        "--name",
        "arm",
        "--model_type",
        tiny,
        "--dtype",
        "float32",
    )
    words += ("--epochs", 30, "--batch_size", 8, "--save_steps", 5, "--device", "cpu", "--learning_rate", "1e-3")
    folder = run / "alignment" / "arm"
    child = subprocess.Popen(command(*words), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 90
    while not list(folder.glob("training/checkpoint-*/complete")):
        assert child.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (folder / "adapter").exists() and not (folder / "done.json").exists()
    cut = folder / "training" / "checkpoint-99999"
    cut.mkdir()
    (cut / "trainer_state.json").write_text("{")
    done = align(*words)
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / "done.json").read_text())
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert facts["steps"] == 120 and steps == list(range(1, 121))
    assert not (folder / "training").exists()
    again = align(*words)
    assert again.returncode == 0 and "nothing is done again" in again.stdout
    other = align(*words, "--lora_r", 4)
    assert other.returncode == 2 and "lora_r changed" in other.stderr
