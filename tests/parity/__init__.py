"""The engine against the oracle: the same token ids, vectors and scores for every kind of input."""
