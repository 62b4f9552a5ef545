"""`benchmark`: learners over numbers of labels and draws, on the same test rows."""
