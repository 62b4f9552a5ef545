"""The web application of a head: a picture or text is posted, its prediction comes back."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, FastAPI
from pydantic import BaseModel, Field

from embedpipe.backbones.backbone import Backbone, Item
from embedpipe.errors import ForwardError
from embedpipe.exporting.network import OutputKind, output_kind
from embedpipe.heads import Head
from embedpipe.heads.predicting.predictions import Predictions
from embedpipe.serving.base_app import MOST_UPLOADED, add_files, base_app, problems
from embedpipe.serving.batching import Batcher
from embedpipe.serving.viewing.collection import as_json_value
from embedpipe.serving.viewing.pictures import check_upload

#: Files of the page, where a person tries the head and reads about the API.
FILES = ("serve.js", "routes.js", "dom.js", "style.css", "icon.svg")


class TextItem(BaseModel):
    """A text to predict."""

    text: str = Field(min_length=1, max_length=500_000)


class Prediction(BaseModel):
    """What a head predicts. Classes have probabilities or scores, of the predicted class first in ``confidence``.

    ``details`` holds what wrappers of the head add: an interval, or whether the prediction is rejected.
    """

    prediction: str | float | int | bool | None
    confidence: float | None = None
    probabilities: dict[str, float] = {}
    details: dict[str, Any] = {}


class Health(BaseModel):
    """That the server answers, and with what: ``output`` says what ``probabilities`` of a prediction holds."""

    status: str
    head: str
    label: str
    backbone: str
    modality: str
    output: OutputKind


class HeadService:
    """Predicts payloads of concurrent requests in batches.

    Parameters
    ----------
    head : Head
    backbone : Backbone
        That of the head's vectors.
    """

    def __init__(self, head: Head, backbone: Backbone) -> None:
        self.head, self._backbone = head, backbone
        self._batches = Batcher(self._predict, backbone.usual_batch)

    def predict(self, payload: Any) -> Prediction:
        """Return the prediction of an encoded picture, or of a text. Raises ItemError."""
        item: Prediction = self._batches(self._backbone.prepare(payload))
        return item

    def _predict(self, items: list[Item]) -> list[Prediction]:
        vectors = self._backbone.forward([item.value for item in items])
        X = np.hstack([vectors[layer.column] for layer in self.head.spec.layers])
        if not np.isfinite(X).all():
            raise ForwardError("the backbone returned values that are not finite")
        predictions = Predictions(self.head.estimator, self.head.task, len(X), self.head.label_separator)
        predictions.add(np.arange(len(X)), X)
        scores = {name.partition("_")[2]: column.to_pylist() for name, column in predictions.scores().items()}
        confidence = predictions.doubt().get("confidence")
        others = {**predictions.interval("prediction"), **predictions.rejection()}
        return [
            Prediction(
                prediction=as_json_value(value),
                confidence=None if confidence is None else confidence[row].as_py(),
                probabilities={name: column[row] for name, column in scores.items()},
                details={name: as_json_value(column[row].as_py()) for name, column in others.items()},
            )
            for row, value in enumerate(predictions.labels().to_pylist())
        ]


def create_head_app(service: HeadService, hosts: tuple[str, ...], token: str | None = None) -> FastAPI:
    """Return the application that serves a head; see `embedpipe.serving.create_app` for the parameters."""
    app = base_app("embedpipe serve", hosts, token)
    app.include_router(_routes(service))
    add_files(app, {"": "serve.html", **{name: name for name in FILES}})
    return app


def _routes(service: HeadService) -> APIRouter:
    router = APIRouter(responses=problems(400, 503))
    spec = service.head.spec

    @router.get("/health")
    async def health() -> Health:  # no thread: all may wait for predictions
        """Say that the server answers."""
        name = f"{spec.provider}/{spec.name}"
        facts = {"head": service.head.name, "label": service.head.label, "modality": spec.modality}
        return Health(status="ok", backbone=name, output=output_kind(service.head), **facts)

    if spec.modality == "image":

        @router.post("/api/predict", max_body_size=MOST_UPLOADED)
        def predict_picture(
            data: Annotated[bytes, Body(media_type="application/octet-stream", max_length=MOST_UPLOADED)],
        ) -> Prediction:
            """Predict a picture, the body of the request."""
            check_upload(data)
            return service.predict(data)

    else:

        @router.post("/api/predict")
        def predict_text(body: TextItem) -> Prediction:
            """Predict a text."""
            return service.predict(body.text)

    return router
