"""What fine-tuning is expected to gain: a model of published gains, conditioned on the runs of a pilot."""
