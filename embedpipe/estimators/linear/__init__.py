"""Linear classifiers and regressors that choose their penalty inside the training rows."""
