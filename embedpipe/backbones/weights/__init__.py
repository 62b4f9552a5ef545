"""Files of weights: reading them without running their code, downloading them, and their hash."""
