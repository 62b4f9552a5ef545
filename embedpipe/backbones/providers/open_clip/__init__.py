"""Provider of the networks of open_clip, each with an encoder for images and one for texts."""
