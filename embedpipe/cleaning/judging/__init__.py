"""What is wrong with rows, from arrays: pairs of duplicates, labels that are doubtful, rows far from all others."""
