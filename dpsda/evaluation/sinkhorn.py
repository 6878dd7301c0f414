"""Sinkhorn divergence: optimal transport between two sets of embeddings, smoothed (Feydy et al. 2019)."""

import numpy as np

BLUR = 0.05  # in the unit of the embeddings, as in Xie et al. 2024


def sinkhorn(a: np.ndarray, b: np.ndarray) -> float:
    """The debiased divergence of `a` (N, D) and `b` (M, D) with the cost |x - y|^2 / 2; 0 for equal sets.

    Memory is N M numbers a few times over. Larger for fewer texts, so compare only values of equal sizes.
    """
    import torch
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=BLUR, backend="tensorized")
    with torch.inference_mode():
        return float(loss(*(torch.as_tensor(np.asarray(x, dtype=np.float32)) for x in (a, b))))
