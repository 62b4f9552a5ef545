"""Estimators around an estimator: calibration, rejection, intervals, several labels."""
