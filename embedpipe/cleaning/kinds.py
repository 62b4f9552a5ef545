"""The kinds of findings."""

#: Every kind of finding in the order of the page: its heading, and what it means.
MEANINGS = {
    "label error": (
        "Labels that are likely to be wrong",
        "Heads that never saw the row, and its neighbours, disagree. The number is the doubt of the label, at most 1.",
    ),
    "label conflict": ("Duplicates with other labels", "One of the two labels is wrong, or the classes overlap."),
    "leak": ("Duplicates in different splits", "Accuracy on such test rows is remembered, not learned."),
    "duplicate": ("Duplicates", "The content is equal: a cosine of 1."),
    "near-duplicate": (
        "Near-duplicates",
        "Copies: re-encoded, resized or mirrored. Or the vectors are nearly equal. The number is the cosine, or the "
        "share of equal bits of the perceptual hashes.",
    ),
    "far from training": ("Far from the training rows", "No training row resembles them."),
    "outlier": ("Outliers", "They are far from all other rows: broken, or of another kind."),
}
KINDS = tuple(MEANINGS)
#: Rows of these kinds are not kept.
DROPPED = ("leak", "duplicate", "near-duplicate")
