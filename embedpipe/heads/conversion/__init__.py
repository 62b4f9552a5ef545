"""Heads in other forms: as a pipeline of scikit-learn's own classes, a module of torch, or one affine map."""
