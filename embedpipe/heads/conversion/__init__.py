"""Heads without embedpipe: `plain_sklearn`, a pipeline of scikit-learn's own classes, and `torch_module`."""
