"""Files of word vectors, such as GloVe and word2vec, as a backbone for texts."""
