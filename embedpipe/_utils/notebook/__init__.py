"""What a notebook shows: progress as one output that changes, results as HTML, pictures inline."""
