"""Provider of word vectors, such as GloVe and word2vec, as backbones for texts."""
