"""What a head predicts: items, vectors and rows of stores, as columns of one table."""
