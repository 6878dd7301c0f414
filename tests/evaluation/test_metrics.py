"""The yardstick: what its rows hold, and what is marked not available instead of failing."""

import numpy as np
import pytest

from dpsda.errors import InputError
from dpsda.evaluation import metrics
from dpsda.evaluation.metrics import Measured, Yardstick, sample_size


def measured(name, n, rng, shift=0.0, texts=None):
    texts = texts or [f"{name} text number {rng.integers(10**9)} of them" for _ in range(n)]
    vectors = (rng.normal(size=(n, 8)) + shift).astype(np.float32)
    return Measured(name, texts, vectors, rng.integers(5, 30, size=n))


@pytest.fixture
def real():
    return measured("real", 200, np.random.default_rng(0))


def yardstick(real, sets, size=60, **settings):
    return Yardstick(real, size, [t for s in sets for t in s.texts], **{"runs": 3, **settings})


def test_floor_is_better_than_a_shifted_set(real):
    rng = np.random.default_rng(1)
    like, unlike = measured("like", 80, rng), measured("unlike", 60, rng, shift=1.5)
    ruler = yardstick(real, [like, unlike])
    floor, near, far = ruler.floor(), ruler.measure(like), ruler.measure(unlike)
    assert set(floor.values) == set(near.values) == set(far.values) == set(metrics.NAMES)
    lower = ("fid", "kl", "tv", "wasserstein", "sinkhorn", "nn_real")
    higher = ("mauve", "precision", "recall", "f1", "density", "coverage")
    for name, sign in [*((n, 1) for n in lower), *((n, -1) for n in higher)]:
        bad, good, best = (sign * row.values[name][0] for row in (far, near, floor))
        assert bad > good and bad > best, name
        assert abs(good - best) < abs(bad - best) / 2, name  # a set from the same source is near the floor
    # the same texts in every run: only the reference varies
    assert far.values["self_similarity"][1] == 0 and near.values["self_similarity"][1] > 0
    assert floor.values["fid"][1] > 0 and floor.runs == 3 and floor.texts == 60


def test_a_planted_copy_is_found(real):
    rng = np.random.default_rng(2)
    copied = measured("copied", 60, rng, texts=[*real.texts[:30], *[f"own {i}" for i in range(30)]])
    copied.vectors[:15] = real.vectors[:15]
    row = yardstick(real, [copied]).measure(copied)
    assert row.values["copies_exact"][0] == 0.5 and row.values["copies_near"][0] == pytest.approx(0.25, abs=0.05)
    assert yardstick(real, []).floor().values["copies_exact"][0] == 0


def test_one_seed_gives_one_table(real):
    fake = measured("fake", 100, np.random.default_rng(3))
    one, same, other = (yardstick(real, [fake], seed=seed).measure(fake) for seed in (0, 0, 1))
    assert one == same and one.values["fid"] != other.values["fid"]


def test_what_is_not_available_is_marked(real):
    rng = np.random.default_rng(4)
    empty, one = measured("empty", 0, rng), measured("one", 1, rng)
    ruler = yardstick(real, [])
    assert ruler.measure(empty).values == {} and ruler.measure(empty).why == "0 texts"
    assert ruler.measure(one).cells()["fid"] is None
    few = yardstick(real, [], size=3).floor()
    assert few.values["precision"] is None and "fewer texts than k + 1" in few.why and few.values["fid"]
    many = yardstick(real, [], size=10, buckets=50).floor()
    assert many.values["mauve"] is None and "fewer different texts than the 50 clusters" in many.why
    assert many.values["recall"] is not None


def test_texts_all_equal(real):
    equal = Measured("equal", ["same"] * 60, np.ones((60, 8), np.float32), np.full(60, 3))
    row = yardstick(real, [equal]).measure(equal)
    assert row.values["self_similarity"][0] == pytest.approx(1) and row.values["recall"][0] == 0
    assert all(np.isfinite(value[0]) for value in row.values.values() if value is not None)
    ruler = yardstick(Measured("equal", ["same"] * 200, np.ones((200, 8), np.float32), np.full(200, 3)), [equal])
    assert "fewer different texts" in ruler.measure(equal).why
    assert ruler.measure(equal).values["fid"][0] == pytest.approx(0)


def test_bad_embeddings_and_too_few_real_texts(real):
    vectors = real.vectors.copy()
    vectors[7, 3] = np.nan
    with pytest.raises(InputError, match="real: an embedding holds NaN"):
        Measured("real", real.texts, vectors, real.lengths)
    with pytest.raises(InputError, match="too few"):
        yardstick(real, [], size=1)


def test_sample_size():
    assert sample_size(1000, [300, 400], 5000) == 300
    assert sample_size(1000, [300, 400], 200) == 200
    assert sample_size(100, [300], 5000) == 50  # the floor needs two halves
    assert sample_size(1000, [0, 300], 5000) == 300  # an empty set does not count


def test_whitened_sets_lie_in_the_reference_s_own_units():
    rng = np.random.default_rng(5)
    scales = np.array([100.0, 3.0, 1.0, 0.5, 1e-3, 1e-3, 1e-3, 1e-3])
    rows = [(rng.normal(size=(n, 8)) * scales + 50).astype(np.float32) for n in (400, 30)]
    mix = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    real, fake = (Measured("x", ["t"] * len(r), (r @ mix).astype(np.float32), np.ones(len(r))) for r in rows)
    white, [other] = metrics.whitened(real, [fake])
    kept = white.vectors.shape[1]
    assert kept == other.vectors.shape[1] == 1  # one direction has nine tenths of the variance
    np.testing.assert_allclose(white.vectors.std(axis=0), 1, rtol=1e-3)
    np.testing.assert_allclose(other.vectors[:, 0].std(), rows[1][:, 0].std() / rows[0][:, 0].std(), rtol=0.05)
    even = Measured("x", ["t"] * 400, (rows[0] / scales @ mix).astype(np.float32), np.ones(400))
    white, _ = metrics.whitened(even, [])
    assert white.vectors.shape[1] >= 7
    np.testing.assert_allclose(np.cov(white.vectors.T), np.eye(white.vectors.shape[1]), atol=0.01)


def test_a_row_has_what_another_encoder_says_beside_it(real):
    fake = measured("fake", 80, np.random.default_rng(6))
    first = yardstick(real, [fake]).measure(fake)
    white, seen = metrics.whitened(real, [fake])
    both = first.beside(yardstick(white, seen).measure(seen[0])).cells()
    assert [name for name in both if name.startswith("other_") and not name.endswith("_std")] == [
        f"other_{name}" for name in metrics.BY_OTHER
    ]
    assert both["mauve"] == first.values["mauve"][0] and both["other_fid"] != both["fid"]
