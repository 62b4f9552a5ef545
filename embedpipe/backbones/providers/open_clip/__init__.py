"""Networks of open_clip: two towers, one for images and one for texts."""
