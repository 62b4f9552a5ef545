"""Words that describe clusters: frequent ones of their texts, or those nearest to their photos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

#: Words of a cluster, texts that are counted, and different words.
MOST_WORDS, MOST_TEXTS, VOCABULARY = 5, 100_000, 50_000
#: Clusters whose words are counted at a time: 100 MB of frequencies.
PART = 256
#: A word of a cluster is so many times as frequent there as in the others, which common words of any language are not.
LEAST_RATIO = 2


def words_of_texts(texts: Sequence[str], clusters: npt.NDArray[np.int64], seed: int) -> list[list[str]]:
    """Return the words that are more frequent in each cluster than in the others, the most telling first.

    The class-based TF-IDF of BERTopic (Grootendorst, arXiv:2203.05794), with its two options against frequent words of
    any language: the root of the frequency in the cluster, and the inverse frequency of BM25. Stop words of English are
    left out, which also tell clusters apart ("he", "she"), and name none.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    count = int(clusters.max()) + 1
    drawn = np.random.default_rng(seed).permutation(len(texts))[:MOST_TEXTS]
    pattern = r"(?u)\b[^\W\d_]{2,}\b"
    vectorizer = CountVectorizer(max_features=VOCABULARY, token_pattern=pattern, stop_words="english")
    try:
        counts = vectorizer.fit_transform([texts[row] for row in drawn])
    except ValueError:  # no text has a word
        return [[] for _ in range(count)]
    member = csr_array((np.ones(len(drawn)), (clusters[drawn], np.arange(len(drawn)))), shape=(count, len(drawn)))
    by_cluster = member @ counts
    total = by_cluster.sum(axis=0)
    inverse = np.log1p(np.maximum(total.sum() / count - total + 0.5, 0) / (total + 0.5))
    names = vectorizer.get_feature_names_out().tolist()
    words: list[list[str]] = []
    for start in range(0, count, PART):
        frequencies = by_cluster[start : start + PART].toarray()
        sizes = frequencies.sum(axis=1, keepdims=True)
        shares = frequencies / np.maximum(sizes, 1)
        elsewhere = (total - frequencies) / np.maximum(total.sum() - sizes, 1)
        words += _best(np.sqrt(shares) * inverse * (shares > LEAST_RATIO * elsewhere), names)
    return words


def nearest_words(
    means: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32], words: Sequence[str]
) -> list[list[str]]:
    """Return the words whose vectors point where each cluster differs from the mean of all rows.

    Parameters
    ----------
    means : float64 array (n_clusters, dim)
        Of rows of unit length.
    sizes : int64 array (n_clusters,)
    vectors : float32 array (n_words, dim)
        Of the words, of unit length.
    words : sequence of str
    """
    centred = means - np.average(means, axis=0, weights=sizes)
    return _best(centred @ vectors.T, words)


def _best(scores: npt.NDArray[np.float64], words: Sequence[str]) -> list[list[str]]:
    """Return the words with the highest positive scores of each row."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :MOST_WORDS]
    return [
        [words[place] for place in places if row[place] > 0] for places, row in zip(order.tolist(), scores, strict=True)
    ]
