"""What `shift` says beside its test: the accuracy to expect, and a page."""
