"""`ExportedNetwork`: a backbone with its head as one module, from pixels or tokens to probabilities."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from embedpipe._utils.option_names import option
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.spec import BackboneSpec, LayerSpec, TextPreprocessing
from embedpipe.errors import UsageError
from embedpipe.estimators.wrappers.conformal import CrossConformalRegressor
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.heads.conversion.torch_module import to_module
from embedpipe.heads.head import Head

#: What a model gives for an item: probabilities or scores of classes, or a number.
OutputKind = Literal["probabilities", "scores", "numbers"]
#: Most values of the rows of a head of nearest neighbours, which the graph holds: 1 GiB.
MOST_NEIGHBOUR_VALUES = 1 << 28


class ExportedNetwork(nn.Module):
    """The network, its layers and their pooling, and the head.

    Parameters
    ----------
    head : Head
    backbone : Backbone
        That of the head's vectors, in fp32 on the CPU.
    names : tuple of str
        Names of the input tensors.
    """

    def __init__(self, head: Head, backbone: Backbone, names: tuple[str, ...]) -> None:
        super().__init__()
        captured = backbone.spec.captured.layers
        self.embedder = Embedder(backbone.network, captured, names)
        self.places = [captured.index(layer.captured) for layer in head.spec.layers]
        self.reducers = nn.ModuleList(_reducer(layer) for layer in head.spec.layers)
        self.head = head.to_torch()
        self.kind, self.task, self.binary = output_kind(head), head.task, _is_binary(head)
        self.eval()

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return float32 (n, n_outputs) of a batch."""
        layers = self.embedder(*tensors)
        vectors = torch.cat([reduce(layers[i]) for i, reduce in zip(self.places, self.reducers, strict=True)], dim=1)
        outputs: Tensor = self.head(vectors)
        if self.kind == "numbers":
            return outputs.reshape(-1, 1)
        if self.kind == "probabilities":
            return torch.sigmoid(outputs) if self.task == "multilabel" else torch.softmax(outputs, dim=1)
        return outputs[:, 1:] - outputs[:, :1] if self.binary else outputs


class _Projection(nn.Module):
    """The projection of a reduced layer."""

    def __init__(self, projection: Any) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(projection.mean.astype("float32")))
        self.register_buffer("matrix", torch.from_numpy(projection.matrix.astype("float32")))

    def forward(self, vectors: Tensor) -> Tensor:
        """Return float32 (n, dimensions)."""
        projected: Tensor = (vectors - self.get_buffer("mean")) @ self.get_buffer("matrix")
        return projected


def _reducer(layer: LayerSpec) -> nn.Module:
    reduction = layer.reduction
    return _Projection(reduction.read()) if reduction and reduction.read else nn.Identity()


def output_kind(head: Head) -> OutputKind:
    """Return what the head gives for an item."""
    if head.task == "regression":
        return "numbers"
    return "probabilities" if hasattr(head.estimator, "predict_proba") else "scores"


def _is_binary(head: Head) -> bool:
    """Return whether the one score is that of the second of two classes."""
    return head.task == "classification" and head.classes is not None and len(head.classes) == 2


def require_exportable(head: Head) -> None:
    """Raise UsageError, with what to do, if a head cannot leave Python whole."""

    def refuse(reason: str, remedy: str) -> None:
        raise UsageError(f"head {head.name!r} cannot be exported: {reason}. {remedy}")

    spec: BackboneSpec = head.spec
    if spec.is_imported:
        refuse(
            f"its vectors were imported, from {spec.name!r}, so there is no network", "Embed the items with a backbone"
        )
    if head.columns:
        names = ", ".join(column.name for column in head.columns)
        refuse(f"it needs the columns {names} beside the {spec.modality}", f"Fit one without {option('features')}")
    if isinstance(head.estimator, CrossConformalRegressor):
        refuse("it gives intervals", f"Fit one without {option('interval_coverage')}")
    if isinstance(head.estimator, RejectingClassifier) and head.estimator.by != "probability":
        refuse(
            "it rejects by the distance to its training rows",
            f"Fit one that rejects by probability ({option('reject_by', 'probability')})",
        )
    if isinstance(spec.preprocessing, TextPreprocessing) and spec.preprocessing.chunk:
        refuse("its texts are read in pieces, whose vectors are averaged", f"Embed without {option('chunk', True)}")
    rows = getattr(head.estimator, "rows_", None)
    if rows is not None and rows.size > MOST_NEIGHBOUR_VALUES:
        refuse(
            f"its {len(rows):,} training rows have {rows.size:,} values, and a graph holds at most "
            f"{MOST_NEIGHBOUR_VALUES:,}",
            f"Fit a linear one ({option('head', 'logreg')})",
        )
    to_module(head.estimator, head.name, "cannot be exported")
