"""Provider of the networks of timm: its own, those of hub repositories, and those of folders."""
