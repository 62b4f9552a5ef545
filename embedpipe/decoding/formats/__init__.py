"""Files whose samples are read as they are stored."""
