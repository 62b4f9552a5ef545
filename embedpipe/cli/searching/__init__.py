"""The verbs that look into a store: ``search``."""
