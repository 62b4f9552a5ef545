"""The scale that heads give columns, on top of scikit-learn's."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.preprocessing import StandardScaler


class LevelledScaler(StandardScaler):  # type: ignore[misc]
    """Scales the quarter of the columns that varies least, of those that vary, as the next one."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        super().fit(X, y, sample_weight)
        varies = self.scale_ != 1
        ordered = np.sort(self.scale_[varies])
        if len(ordered):
            self.scale_[varies] = np.clip(self.scale_[varies], ordered[(len(ordered) - 1) // 4], None)
        return self
