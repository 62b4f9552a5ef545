"""The numerical methods of the linear estimators, in NumPy and in torch."""
