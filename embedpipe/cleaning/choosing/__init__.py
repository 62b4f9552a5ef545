"""`next`: what to label, and what that gains over random choices on the labelled rows."""
