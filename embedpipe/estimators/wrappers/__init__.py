"""Wrappers of an estimator: calibration, rejection, prediction intervals, several labels."""
