"""Every shipped script walks its dry run, and every shipped YAML is what its command takes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from dpsda.arg_utils import parse
from dpsda.commands import COMMANDS
from dpsda.data import DatasetSpec
from dpsda.errors import InputError
from dpsda.evaluation.options import DownstreamOptions, MetricOptions, SubjectOptions
from dpsda.options import DataOptions, EmbeddingOptions, EngineOptions
from dpsda.precompute import DeviceOptions

ROOT = Path(__file__).parents[1]
PUBLISHED = ("yelp", "openreview", "pubmed")
GENERATE = [f"{folder}/{name}" for name in PUBLISHED for folder in ("hf", "hf/template", "gpt-3.5-turbo")]
EVALUATE = {"downstream": (SubjectOptions, DownstreamOptions), "metric": (SubjectOptions, MetricOptions)}


def script(name: str, *options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts" / name), *map(str, options)]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("CONDA", "WANDB"))} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, cwd="/")


@pytest.fixture
def rows(tmp_path):
    """A csv of 40 made-up records in the format of a published data set."""

    def write(name: str) -> Path:
        spec = DatasetSpec.read(name)
        path = tmp_path / f"{name}.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([spec.text, *spec.label_columns])
            writer.writerows([f"Record {i}.", *spec.cells[i % len(spec.cells)]] for i in range(40))
        return path

    return write


@pytest.mark.parametrize("name", GENERATE)
def test_dry_run_of_the_generating_scripts(rows, name):
    """Options pass through: the small sizes and the budget given here are those of the run."""
    folder, _, data = name.rpartition("/")
    file = f"hf/{data}/generate.sh" if folder == "hf" else f"{name}.sh"
    small = ("--num_seed_samples", 30, "--epochs", 2, "--noise", 5, "--train_data_file", rows(data))
    done = script(file, "--dry_run", *small, "--result_folder", "/nowhere")
    assert done.returncode == 0, done.stderr
    assert "the epsilon of noise multiplier 5.0000" in done.stdout and "iteration 2/2" in done.stdout
    assert "nothing is kept" in done.stdout and not Path("/nowhere").exists()
    if data != "pubmed":
        assert "the label counts are taken as public" in done.stdout
    evaluated = [line for line in done.stdout.splitlines() if line.startswith("would ")]
    assert len(evaluated) == (0 if folder == "hf" else 2)
    assert all("of /nowhere" in line and "into /nowhere/" in line for line in evaluated)


@pytest.mark.parametrize("data", PUBLISHED)
@pytest.mark.parametrize("step", EVALUATE)
def test_dry_run_of_the_evaluating_scripts(data, step):
    done = script(f"hf/{data}/{step}.sh", "--dry_run", "--result_folder", "/nowhere")
    assert done.returncode == 0, done.stderr
    against = "test them on test, into /nowhere/" if step == "downstream" else "against train, into /nowhere/private/"
    assert against in done.stdout and done.stdout.count("\n") == 1 and not Path("/nowhere").exists()
    refused = script(f"hf/{data}/{step}.sh", "--result_folder", "/nowhere")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and not Path("/nowhere").exists()


def test_dry_run_of_the_resampling_script():
    done = script("resample/rotten_tomatoes.sh", "--dry_run", "--result_folder", "/nowhere", "--epsilon", 5)
    assert done.returncode == 0, done.stderr
    would = [line for line in done.stdout.splitlines() if line.startswith("would ") and "/nowhere" in line]
    assert len(would) == 2 and "within --epsilon 5" in would[0] and not Path("/nowhere").exists()
    refused = script("resample/rotten_tomatoes.sh", "--result_folder", "/nowhere")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and not Path("/nowhere").exists()


def test_dry_run_of_the_composed_script():
    done = script("composed.sh", "rotten_tomatoes", "--dry_run", "--result_folder", "/nowhere", "--epsilon", 5)
    assert done.returncode == 0, done.stderr
    assert "training: 40 steps" in done.stdout and "for 1 vote" in done.stdout and not Path("/nowhere").exists()
    assert "a dry run has no samples to begin with" in done.stdout
    for option, why in (
        ("yelp", "data/yelp/composed.yaml: there is no such file"),
        ("--help", "there is no such file"),
    ):
        refused = script("composed.sh", option)
        assert refused.returncode == 2 and why in refused.stderr
    refused = script("composed.sh", "rotten_tomatoes", "--epochs", 2)
    assert refused.returncode == 2 and "--epochs: is no option of both stages" in refused.stderr


def test_embeddings_script_embeds_and_goes_on(rows, tmp_path):
    from dpsda.assets import resolve

    encoder = resolve("embedded:all-minilm-l6-v2")
    options = ("--feature_extractor", encoder, "--train_data_file", rows("yelp"), "--log_private")
    quiet = script("embeddings.sh", "--yelp", *options[:-1], DPSDA_HOME=str(tmp_path / "home"))
    assert quiet.returncode == 0 and "40" not in quiet.stdout  # how many distinct texts there are is private
    again = script("embeddings.sh", "--yelp", *options, DPSDA_HOME=str(tmp_path / "home"))
    assert again.returncode == 0 and "0 of 40 texts new" in again.stdout, again.stderr
    assert len(list((tmp_path / "home" / "private" / "embeddings").glob("*/*.vectors.npy"))) == 1
    refused = script("embeddings.sh", "--reviews")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


def test_benchmark_of_a_gpu(tmp_path):
    """Tiny sizes on what is here; a line that is there is not measured again."""
    import torch

    lines = ("votes", "parity_votes")
    first = script("../benchmarks/gpu.sh", "--quick", *lines, GPU_RESULTS=str(tmp_path))
    assert first.returncode == 0, first.stderr
    table, kept = (tmp_path / "table.md").read_text(), (tmp_path / "lines.jsonl").read_text()
    figures = {row["line"]: row["figures"] for row in map(json.loads, kept.splitlines())}
    assert set(figures) == set(lines) and "| training | not measured |" in table and "driver" in table
    assert all(f"| {line} | {name} |" in table for line in lines for name in figures[line])
    assert all(seconds > 0 for seconds in figures["votes"].values())
    if not torch.cuda.is_available():
        assert set(figures["parity_votes"].values()) == {0} and "the CPU with itself" in table
        refused = script("../benchmarks/gpu.sh", GPU_RESULTS=str(tmp_path))
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    again = script("../benchmarks/gpu.sh", "--quick", *lines, GPU_RESULTS=str(tmp_path))
    assert again.returncode == 0 and "==" not in again.stdout and (tmp_path / "lines.jsonl").read_text() == kept
    assert (tmp_path / "table.md").read_text() == table


def test_every_yaml_is_what_its_command_takes():
    """A file of a name that nobody here reads is a mistake, too."""
    readers = {
        "spec.yaml": lambda path: DatasetSpec.read(path.parent),
        "prompts.yaml": lambda path: None,  # tests/data/test_published.py renders them
        "download.yaml": lambda path: None,  # tests/data/test_download.py
        "published.yaml": lambda path: None,  # tests/test_notebooks.py
        "ensemble.yaml": lambda path: parse(["--config", str(path)], "", "", *COMMANDS["predict"].steps["train"]),
        "resample.yaml": lambda path: parse(["--config", str(path)], "", "", *COMMANDS["resample"].groups),
        "embeddings.yaml": lambda path: parse(
            ["--config", str(path)], "", "", DataOptions, EmbeddingOptions, EngineOptions, DeviceOptions
        ),
        **{
            f"{step}.yaml": lambda path, groups=groups: parse(["--config", str(path)], "", "", *groups)
            for step, groups in EVALUATE.items()
        },
    }
    for path in sorted(ROOT.glob("data/*/*.yaml")):
        if path.name in readers:
            readers[path.name](path)
        else:
            groups = COMMANDS["finetune"].groups if path.name.startswith("finetune") else COMMANDS["augpe"].groups
            options = parse(["--config", str(path)], "", "", *groups)
            assert options[0].dataset == path.parent.name
    for data in PUBLISHED:
        configs = [ROOT / "data" / data / f"{name}.yaml" for name in ("hf", "gpt-3.5-turbo", "embeddings", "metric")]
        assert len({yaml.safe_load(path.read_text())["feature_extractor"] for path in configs}) == 1


@pytest.mark.parametrize(
    ("data", "seeds", "local", "remote", "blanks"),
    [
        ("yelp", 5000, (64, 1.4), (128, 1.4, 40, 1.2), 0.5),
        ("openreview", 2000, (448, 1.2), (1000, 1.2, 60, 5), 0.5),
        ("pubmed", 2000, (448, 1.0), (1000, 1.2, 60, 5), 0.6),
    ],
)
def test_published_settings(data, seeds, local, remote, blanks):
    """Xie et al. 2024: scripts and appendix."""
    settings = {}
    for name in ("hf", "gpt-3.5-turbo"):
        config = ROOT / "data" / data / f"{name}.yaml"
        _, privacy, evolution, _, model, *_ = parse(["--config", str(config)], "", "", *COMMANDS["augpe"].groups)
        settings[name] = evolution, model
        assert privacy.label_counts == ("private" if data == "pubmed" else "public")
        assert evolution.epochs == 10 and evolution.sizes == [seeds] * 11 and evolution.select_syn_mode == "rank"
        assert evolution.hub_correction == "none" and evolution.in_context_share == 0
        assert evolution.lookahead_degree == 0 and evolution.num_nearest_neighbor == 1 and evolution.nn_mode == "L2"
    evolution, model = settings["hf"]
    assert (evolution.L, evolution.init_L, evolution.variation_type) == (7, 7, "paraphrase")
    assert (model.length, model.temperature, model.top_k, model.top_p, model.dynamic_len) == (*local, 50, 0.9, False)
    evolution, model = settings["gpt-3.5-turbo"]
    assert (evolution.L, evolution.init_L, evolution.variation_type) == (4, 4, "blank_fill")
    assert evolution.variation_degree_schedule == [blanks] and model.dynamic_len
    assert (model.length, model.temperature, model.word_var_scale, model.max_token_word_scale) == remote
    assert (model.min_target_word, model.max_token_limit) == (25, 1200)


def test_published_evaluation():
    """Xie et al. 2024: three seeds of roberta-base for each label, bert-small and bert-mini; five draws of 5,000."""
    for data, model, epochs, rate, tokens in [
        ("yelp", ["roberta-base"], [5], 3e-5, 0),
        ("openreview", ["roberta-base"], [10], 3e-5, 100),
        ("pubmed", ["prajjwal1/bert-small", "prajjwal1/bert-mini"], [10, 20], 3e-4, 50),
    ]:
        config = ["--config", str(ROOT / "data" / data / "downstream.yaml")]
        subject, trained = parse(config, "", "", *EVALUATE["downstream"])
        assert (trained.models, trained.epochs, trained.learning_rate) == (model, epochs, rate)
        assert (trained.batch_size, trained.max_length, subject.min_token_threshold) == (32, 512, tokens)
        assert trained.task == ("lm" if data == "pubmed" else "classify")
        _, measured = parse(["--config", str(ROOT / "data" / data / "metric.yaml")], "", "", *EVALUATE["metric"])
        assert (measured.private_data_size, measured.run, measured.k) == (5000, 5, 3)


# those of main.py in the public code and its README
PUBLIC_FLAGS = """
    api dataset train_data_file train_data_embeddings_file data_checkpoint_path data_checkpoint_step
    num_private_samples subsample_one_class result_folder feature_extractor feature_extractor_batch_size feat_ext
    num_nearest_neighbor nn_mode noise_multiplier noise count_threshold lookahead_degree lookahead_self
    num_samples_schedule num_seed_samples epochs combine_divide_L L init_combine_divide_L donnot_keep_last_iter
    variation_degree_schedule select_syn_mode save_syn_mode compute_fid log_online wandb_key project model_type
    use_subcategory variation_type length temperature top_k top_p repetition_penalty do_sample seed dry_run
    random_sampling_batch_size variation_batch_size fp16 no_cuda num_procs sleep_time dynamic_len min_target_word
    word_var_scale max_token_word_scale max_token_limit mlm_probability
"""


@pytest.mark.parametrize("name", PUBLIC_FLAGS.split())
def test_every_flag_of_the_public_code_is_known_or_answered(name):
    with pytest.raises(InputError) as error:
        parse(
            [f"--{name}"], "", "", *COMMANDS["augpe"].groups
        )  # without a value, and without the flags that are needed
    message = str(error.value)
    assert "unknown option" not in message and "\n" not in message
    assert any(part in message for part in ("expected", "is needed", "something else here", "set WANDB_API_KEY"))


@pytest.mark.parametrize(
    "name",
    [
        "original_file",
        "synthetic_file",
        "synthetic_folder",
        "synthetic_iteration",
        "train_data_embeddings_file",
        "model_name_or_path",
        "private_data_size",
        "min_token_threshold",
        "run",
        "k",
        "dataset",
    ],
)
def test_every_flag_of_the_public_metrics_is_known(name):
    with pytest.raises(InputError) as error:
        parse([f"--{name}"], "", "", *EVALUATE["metric"])
    assert "expected" in str(error.value)
