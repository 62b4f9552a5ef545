"""What `evaluate` prints."""
