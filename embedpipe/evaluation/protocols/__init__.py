"""Published evaluation protocols, by name and version, for results that are comparable with papers."""
