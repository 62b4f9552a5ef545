"""The names of splits: how folders and columns spell train, validation and test."""

#: Spelling in lower case -> the split.
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
