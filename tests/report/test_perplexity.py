"""The charts of the ablations: which rows meet in a chart, and what is drawn."""

import json
import re

import pandas as pd
import pytest

from dpsda.errors import InputError
from dpsda.report import perplexity


def table(root, name, *, shards=16, queries=1024, inclusion=0.03, runs=4, public=50.0, **rows):
    """A table as predict.py evaluate writes it; `rows` are METHOD_EPSILON = perplexity, or (perplexity, order)."""
    (root / "private").mkdir(parents=True, exist_ok=True)
    (root / "state").mkdir(exist_ok=True)
    config = {"dataset": "news", "private_share": 1.0, "model_type": "small"}
    (root / "state" / "ensemble.json").write_text(json.dumps(config))
    found = [{"model": "public", "epsilon": 0.0, "perplexity": public, "order": ""}]
    for key, value in rows.items():
        method, epsilon = key.split("_")
        value, order = value if isinstance(value, tuple) else (value, "")
        found.append({"model": f"{method} {epsilon}", "epsilon": epsilon, "perplexity": value, "order": order})
    found.append({"model": "unprotected", "epsilon": "inf", "perplexity": 9.0, "order": ""})
    frame = pd.DataFrame(found).assign(
        std=1.0, shards=shards, inclusion=inclusion, queries=queries, delta=1e-5, runs=runs
    )
    frame.to_csv(root / "private" / f"{name}.csv", index=False)


def drawn(page):
    """(title of a chart, method, x, y) of every point."""
    found = []
    for figure in re.findall(r"<figure>.*?</figure>", page, re.S):
        title = re.search(r"<figcaption>(.*?) <small>", figure)[1]
        for told in re.findall(r"<circle[^>]*><title>(.*?)</title>", figure):
            method, rest = told.split(", ", 1) if "no guarantee" not in told else told.rsplit(", ", 1)
            x, y = rest.rsplit(": ", 1)
            found.append((title, method, x.split()[-1], float(y)))
    return found


def test_a_chart_for_every_setting_that_was_varied_alone(tmp_path):
    root = tmp_path / "run"
    table(root, "by_epsilon", max_2=48.0, max_8=40.0, paper_2=(47.0, 9), paper_8=(41.0, 3))
    table(root, "by_queries_512", queries=512, public=60.0, max_8=45.0)  # other texts: another public perplexity
    table(root, "by_order_5", paper_8=(45.0, 5))
    table(root, "perplexity", runs=8, max_4=1.0)  # of another number of runs: not comparable, alone, not drawn
    pd.DataFrame({"a": [1]}).to_csv(root / "private" / "dropped.csv", index=False)
    table(tmp_path / "more", "perplexity", shards=32, max_8=35.0)
    page = perplexity.build(perplexity.read([root, tmp_path / "more"]))
    paper = "as published, no guarantee"
    assert sorted(drawn(page)) == sorted(
        [
            ("By epsilon", "max-divergence", "2", 0.96),
            ("By epsilon", "max-divergence", "8", 0.8),
            ("By epsilon", paper, "2", 0.94),
            ("By epsilon", paper, "8", 0.82),
            ("By queries T", "max-divergence", "512", 0.75),
            ("By queries T", "max-divergence", "1024", 0.8),
            ("By queries T", paper, "1024", 0.82),
            ("By models N", "max-divergence", "16", 0.8),
            ("By models N", "max-divergence", "32", 0.7),
            ("By models N", paper, "16", 0.82),
            ("By order of the published projection", paper, "3", 0.82),
            ("By order of the published projection", paper, "5", 0.9),
        ]
    )
    assert "do not share" in page and "inclusion 0.03" in page and "Renyi" not in page


def test_what_cannot_be_drawn_is_said(tmp_path):
    root = tmp_path / "run"
    table(root, "perplexity", max_8=40.0)
    with pytest.raises(InputError, match="no setting was varied"):
        perplexity.build(perplexity.read([root]))
    (root / "private" / "perplexity.csv").unlink()
    with pytest.raises(InputError, match="no table of `dpsda predict"):
        perplexity.read([root])
    with pytest.raises(InputError, match="the file is missing"):
        perplexity.read([tmp_path / "nothing"])
