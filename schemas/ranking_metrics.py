"""Metrics of how well the scores rank the correct class above the others. Uses NumPy only."""

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]


def label_ranks(labels: npt.NDArray[np.int64], probabilities: Scores) -> npt.NDArray[np.int64]:
    """Returns, for each image, how many classes rank above its label: int [n], 0 if the label is the predicted class.

    labels are [n], probabilities [n, classes]. Ties go to the first class, as in argmax and in the top of /predict.
    """
    own = probabilities[np.arange(len(labels)), labels][:, np.newaxis]
    before = np.arange(probabilities.shape[1]) < labels[:, np.newaxis]
    ranks: npt.NDArray[np.int64] = ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)
    return ranks


def roc_auc(positive: npt.NDArray[np.bool_], scores: Scores) -> float | None:
    """Returns the area under the ROC curve (Hanley & McNeil, 1982). positive and scores are [n].

    It is the probability that a positive image scores higher than a negative one; ties count half. Returns None if
    either class is missing.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2  # of each group of tied scores, counted from 1
    wins = float(mean_rank[group][positive].sum()) - positives * (positives + 1) / 2
    return wins / (positives * negatives)


def average_precision(positive: npt.NDArray[np.bool_], scores: Scores) -> float | None:
    """Returns the precision at each threshold, weighted by the increase in recall, without interpolation.

    positive and scores are [n]. Returns None if either class is missing.
    """
    positives = int(positive.sum())
    if not positives or positives == len(positive):
        return None
    order = np.argsort(-scores, kind="stable")
    # A threshold cannot separate images of equal score.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(positive[order])[last]
    return float((hits / (last + 1)) @ np.diff(hits, prepend=0) / positives)
