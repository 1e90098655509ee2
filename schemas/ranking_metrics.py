"""How well probabilities put the right answer ahead of the wrong ones. numpy alone."""

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]


def label_ranks(labels: npt.NDArray[np.int64], probabilities: Scores) -> npt.NDArray[np.int64]:
    """Of each image, how many classes come before its label [n]: 0 where the label is the answer.

    probabilities are [n, classes]. Among equals the first class comes first, as in argmax and in /predict's top.
    """
    own = probabilities[np.arange(len(labels)), labels][:, np.newaxis]
    before = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]
    ranks: npt.NDArray[np.int64] = ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)
    return ranks


def roc_auc(positive: npt.NDArray[np.bool_], scores: Scores) -> float | None:
    """Area under the ROC curve (Hanley & McNeil, 1982): equals count half. positive and scores are [n].

    It is the chance that a positive image has a higher score than a negative one. None where all are positive, or none
    is.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2  # of each group of equal scores, counted from 1
    wins = float(mean_rank[group][positive].sum()) - positives * (positives + 1) / 2
    return wins / (positives * negatives)


def average_precision(positive: npt.NDArray[np.bool_], scores: Scores) -> float | None:
    """Mean precision over the thresholds at which recall grows, weighted by that growth; not interpolated.

    positive and scores are [n]. None where all are positive, or none is.
    """
    positives = int(positive.sum())
    if not positives or positives == len(positive):
        return None
    order = np.argsort(-scores, kind="stable")
    # Images of equal score are above a threshold together or not at all.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(positive[order])[last]
    return float((hits / (last + 1)) @ np.diff(hits, prepend=0) / positives)
