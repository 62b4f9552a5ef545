"""Classical heads on stored features: estimators, how they are measured, and how they travel.

Names are imported on first use: the options need no scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.heads.artefact import load_head
    from embedpipe.heads.auto import AutoClassifier, AutoRegressor
    from embedpipe.heads.calibrated import TemperatureCalibratedClassifier
    from embedpipe.heads.centroid import CentroidClassifier
    from embedpipe.heads.common_components import CommonComponentRemover
    from embedpipe.heads.conformal import CrossConformalRegressor
    from embedpipe.heads.discriminant import ShrunkenLDA
    from embedpipe.heads.fitting import fit
    from embedpipe.heads.head import Head
    from embedpipe.heads.knn import FaissKNNClassifier, FaissKNNRegressor
    from embedpipe.heads.levelled_scaler import LevelledScaler
    from embedpipe.heads.multilabel import MultiLabelClassifier
    from embedpipe.heads.options import FitOptions
    from embedpipe.heads.registry import load_estimator
    from embedpipe.heads.rejecting import RejectingClassifier
    from embedpipe.heads.ridge import TunedRidge, TunedRidgeClassifier
    from embedpipe.heads.scoring import FitReport
    from embedpipe.heads.tuned import TunedLinearSVC, TunedLogisticRegression

_HOME = {
    "AutoClassifier": "auto",
    "AutoRegressor": "auto",
    "CentroidClassifier": "centroid",
    "CommonComponentRemover": "common_components",
    "CrossConformalRegressor": "conformal",
    "FaissKNNClassifier": "knn",
    "FaissKNNRegressor": "knn",
    "FitOptions": "options",
    "FitReport": "scoring",
    "Head": "head",
    "LevelledScaler": "levelled_scaler",
    "MultiLabelClassifier": "multilabel",
    "RejectingClassifier": "rejecting",
    "ShrunkenLDA": "discriminant",
    "TemperatureCalibratedClassifier": "calibrated",
    "TunedLinearSVC": "tuned",
    "TunedLogisticRegression": "tuned",
    "TunedRidge": "ridge",
    "TunedRidgeClassifier": "ridge",
    "fit": "fitting",
    "load_estimator": "registry",
    "load_head": "artefact",
}

__all__ = [
    "AutoClassifier",
    "AutoRegressor",
    "CentroidClassifier",
    "CommonComponentRemover",
    "CrossConformalRegressor",
    "FaissKNNClassifier",
    "FaissKNNRegressor",
    "FitOptions",
    "FitReport",
    "Head",
    "LevelledScaler",
    "MultiLabelClassifier",
    "RejectingClassifier",
    "ShrunkenLDA",
    "TemperatureCalibratedClassifier",
    "TunedLinearSVC",
    "TunedLogisticRegression",
    "TunedRidge",
    "TunedRidgeClassifier",
    "fit",
    "load_estimator",
    "load_head",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
