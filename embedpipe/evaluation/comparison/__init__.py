"""`evaluate`: candidates on the same rows and splits, their metrics, differences and page."""
