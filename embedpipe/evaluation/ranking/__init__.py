"""`rank`: which backbone fits the data, measured on a sample that it embeds itself."""
