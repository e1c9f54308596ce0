"""A linear probe: what of a word's tag can be read off its state by one linear layer.

Logistic regression on standardised states, to convergence, with a little weight decay: it has one solution, so a figure
is a property of the states, not of a schedule. LLM2Vec trains its layer by AdamW for 4,000 steps of 8 sentences, rate
5e-4, dropout 0.1, in bfloat16 on states as they are, and keeps a checkpoint; that reaches another point.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Variance that the weight decay expects of a logit: scikit-learn's C is this, shared out among the dimensions, so that
#: models of different ones meet the same decay. Chosen by cross-validation on 150 sentences of CoNLL-2000's training
#: part with SmolLM2-135M: a tenth of it is worse everywhere, ten times as much a little better for parts of speech and
#: worse for chunks.
VARIANCE: Final = 6.0
#: Most steps of L-BFGS.
STEPS: Final = 500


def settings() -> dict[str, Any]:
    """Return what a probe depends on."""
    return {"probe": "logistic regression on standardised states", "variance": VARIANCE, "steps": STEPS}


def predict(train: NDArray[np.float32], tags: Sequence[str], test: NDArray[np.float32]) -> NDArray[np.str_]:
    """Fit a probe and return the tags it gives to other words.

    Args:
        train: states to learn from, ``[n, D]``.
        tags: theirs, of two kinds at least.
        test: states to tag, ``[m, D]``.

    Returns:
        ``[m]`` tags, all among those seen.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    probe = LogisticRegression(C=VARIANCE / train.shape[1], max_iter=STEPS)
    with warnings.catch_warnings():
        # How many steps there are is part of what the figure means, and the same for every model.
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(scaler.fit_transform(train), np.asarray(tags))
    return np.asarray(probe.predict(scaler.transform(test)))
