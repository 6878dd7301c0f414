"""How far a run is, as another terminal sees it."""

from __future__ import annotations

import json
import re

import pytest

from dpsda import status
from dpsda.augpe.evolution import Evolution
from dpsda.errors import InputError
from dpsda.finetune.training import Trainer
from dpsda.routes import augpe, finetune
from tests.conftest import options, use
from tests.finetune.made import options as finetune_options


def test_a_run_of_aug_pe(tmp_path, dataset, monkeypatch):
    use(monkeypatch)
    root, small = tmp_path / "run", {"epochs": 1, "num_seed_samples": 12, "L": 2}
    with pytest.raises(InputError, match="not the folder of a run"):
        status.line(root)
    augpe.generate(root, *options(dataset, privacy={"epsilon": 2.0}, evolution=small))
    said = status.line(root)
    assert "run: Aug-PE, iteration 1 of 1; epsilon " in said and said.endswith("; finished")
    assert " of 2 spent; 12 answers stored; finished" in said
    (root / "release" / "certificate.json").unlink()
    assert "; not finished, last file written " in status.line(root)
    augpe.generate(tmp_path / "bare", *options(dataset, privacy={"epsilon": float("inf")}, evolution=small))
    assert "iteration 1 of 1; no guarantee; " in status.line(tmp_path / "bare")


def test_what_is_left_and_what_it_cost(tmp_path, dataset, monkeypatch):
    """Two of three calls of 12 texts are answered, ten seconds each. A line of the log is on its way."""
    use(monkeypatch)
    root, votes = tmp_path / "run", Evolution._noisy_votes

    def until_the_second(self, t, candidates, sizes):
        if t == 2:
            raise KeyboardInterrupt
        return votes(self, t, candidates, sizes)

    monkeypatch.setattr(Evolution, "_noisy_votes", until_the_second)
    small = {"epochs": 3, "num_seed_samples": 12, "L": 2}
    with pytest.raises(KeyboardInterrupt):
        augpe.generate(root, *options(dataset, privacy={"epsilon": 2.0}, evolution=small))
    for path in (root / "state" / "answers").iterdir():
        lines = [json.loads(line) | {"took": 10} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = status.line(root)
    assert "; 24 answers stored; answers for about 2 min left; not finished, " in said
    spent, left = map(float, re.findall(r"epsilon ([\d.]+) of 2 spent, ([\d.]+) left; ", said)[0])
    assert 0 < spent < 2 and spent + left == pytest.approx(2)
    asked = json.dumps({"time": "", "prompt_tokens": 1_000_000, "completion_tokens": 500_000}) + "\n"
    (root / "state" / "requests.jsonl").write_text(2 * asked + asked[:20])
    assert "; 2 requests; answers for" in status.line(root)
    config = root / "state" / "augpe.json"
    model = json.loads(config.read_text())["model_type"]
    (tmp_path / "prices.yaml").write_text(json.dumps({model: {"input": 1, "output": 2}}))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prices": str(tmp_path / "prices.yaml")}))
    assert "; 2 requests, $4.00; answers for" in status.line(root)
    assert (root / "state" / "requests.jsonl").read_text().endswith(asked[:20])


def test_a_training_that_is_on_its_way(tmp_path, dataset, llama, monkeypatch):
    root, step = tmp_path / "run", Trainer.step

    def until_the_fifth(self, mechanism, number):
        if number == 4:
            raise KeyboardInterrupt
        step(self, mechanism, number)

    monkeypatch.setattr(Trainer, "step", until_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        finetune.generate(root, *finetune_options(dataset, llama))
    assert (
        "fine-tuning, 4 of 6 steps in checkpoints; epsilon " in (said := status.line(root)) and "not finished" in said
    )


def test_a_stage_that_goes_on_with_a_finished_one(tmp_path, dataset, llama, monkeypatch):
    """Its first texts cost nothing, so that the certificate of the stage before is still current."""
    use(monkeypatch)
    root, kept = tmp_path / "run", {"privacy": {"noise": 5.0}}
    finetune.generate(root, *finetune_options(dataset, llama, **kept, sampling={"num_samples": 60}))
    assert status.line(root).endswith("; finished")
    monkeypatch.setattr(Evolution, "_candidates", lambda self, t, kept: pytest.fail("killed"))
    chosen = {"first_texts": "samples", "epochs": 1, "num_seed_samples": 12}
    with pytest.raises(pytest.fail.Exception, match="killed"):
        augpe.generate(root, *options(dataset, **kept, evolution=chosen))
    assert "Aug-PE, iteration 0 of 1; " in (said := status.line(root)) and "not finished" in said
