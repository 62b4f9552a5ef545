"""Columns of a store by name."""

from __future__ import annotations

import pytest

from embedpipe.errors import UsageError
from embedpipe.store.schema import require_column


def test_unknown_label_points_to_the_column_that_holds_labels() -> None:
    """After ``embed(label="kind")``, ``fit(label="kind")`` is the usual mistake."""
    with pytest.raises(UsageError, match=r"'kind' \(label=\.\.\.\); embed stores labels in the column 'label'"):
        require_column("kind", ["id", "label"], "photos.features", "label")
    with pytest.raises(UsageError) as unlabelled:
        require_column("kind", ["id"], "photos.features", "label")
    assert "embed stores" not in str(unlabelled.value)
