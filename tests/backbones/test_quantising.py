"""Networks in 8-bit integers: their vectors, which are refused, and that quantisation is reproducible."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from embedpipe import load_backbone
from embedpipe.backbones.engines.calibration import crop_photographs
from embedpipe.backbones.engines.openvino_engine import OpenVinoEngine, convert
from embedpipe.backbones.engines.quantising import LARGEST_MOVEMENT, movement, quantise
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.errors import BackboneError

pytest.importorskip("openvino")
pytest.importorskip("nncf")
pytestmark = pytest.mark.long

IMAGE = (32, 32, 3)


class Small(nn.Module):
    """A convolution, a depthwise convolution and another convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.last = nn.Conv2d(8, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = self.last(self.depthwise(self.first(x).relu()).relu()).mean((2, 3))
        return mean


class Wide(Small):
    """One channel has a wide range and no effect on the output, but the others share its 8 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.first(x).relu()).relu()
        far = torch.cat([1e5 + 1e5 * x[:, :1], x[:, 1:]], dim=1)
        weights = torch.cat([0 * self.last.weight[:, :1], self.last.weight[:, 1:]], dim=1)
        return nn.functional.conv2d(far, weights).mean((2, 3))


def network(module: type[Small] = Small) -> Any:
    """Return a network in OpenVINO's format."""
    backbone = load_backbone("python:tiny_backbone.make", device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        instance = module().eval().requires_grad_(False)
    image = dataclasses.replace(backbone.network, module=instance)
    return convert(Embedder(image, backbone.spec.layers, ("pixels",)), (torch.zeros(2, *IMAGE, dtype=torch.uint8),))


@pytest.fixture(scope="module")
def plain() -> Any:
    return network()


@pytest.fixture(scope="module")
def quantised(plain: Any) -> Any:
    return quantise(plain, IMAGE)


def run(model: Any, precision: Any, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    engine = OpenVinoEngine(model, precision, 1, IMAGE)
    return np.asarray(engine.run([(torch.from_numpy(images),)])[0][0])


def test_quantised_vectors_are_close_to_the_exact_ones(plain: Any, quantised: Any) -> None:
    images = np.random.default_rng(1).integers(0, 256, (9, *IMAGE), dtype=np.uint8)
    exact, moved = run(plain, "fp32", images), run(quantised, "int8", images)
    assert moved.shape == exact.shape == (9, 12)
    assert 0 < np.abs(exact - moved).max() < 0.1 * np.abs(exact).max()
    assert any(operation.get_type_name() == "FakeQuantize" for operation in quantised.get_ops())
    assert not any(operation.get_type_name() == "FakeQuantize" for operation in plain.get_ops())


def test_quantising_again_gives_the_same_network(plain: Any, quantised: Any) -> None:
    images = np.random.default_rng(2).integers(0, 256, (5, *IMAGE), dtype=np.uint8)
    again = quantise(plain, IMAGE)
    np.testing.assert_array_equal(run(quantised, "int8", images), run(again, "int8", images))


@pytest.mark.long
def test_network_whose_vectors_move_too_far_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"int8' is not available for this network: .* by \d+ % .*\. Use bf16"):
        quantise(network(Wide), IMAGE)


def test_quantising_prints_nothing_and_loads_no_telemetry(plain: Any, capfd: pytest.CaptureFixture[str]) -> None:
    before = sys.modules.get("openvino_telemetry")
    quantise(plain, IMAGE)
    assert capfd.readouterr() == ("", "")
    assert sys.modules.get("openvino_telemetry") is before


def test_movement_is_relative_to_the_spread_of_the_layer_that_moves_most() -> None:
    vectors = np.array([[3.0, 5.0], [-1.0, 5.0]], np.float32)  # 2 from their mean
    moved = vectors + np.array([[0.0, 1.0], [0.0, -1.0]], np.float32)
    other = 100 * vectors
    assert movement([vectors, other], [moved, other]) == pytest.approx(0.5)
    assert movement([vectors], [vectors]) == 0 < LARGEST_MOVEMENT


def test_movement_of_equal_vectors_is_too_large() -> None:
    vectors = np.ones((4, 2), np.float32)
    assert movement([vectors], [vectors + np.float32(0.1)]) > LARGEST_MOVEMENT


def test_crops_are_reproducible_and_the_two_parts_share_none() -> None:
    crops = crop_photographs((24, 20, 3), 12, "fit")
    assert crops.shape == (12, 24, 20, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops, crop_photographs((24, 20, 3), 12, "fit"))
    assert len(np.unique(crops.reshape(12, -1), axis=0)) == 12
    others = crop_photographs((24, 20, 3), 12, "check")
    assert not (crops[:, None] == others[None]).all(axis=(2, 3, 4)).any()
    grey = (crops == crops[..., :1]).all(axis=(1, 2, 3))
    assert 0 < grey.sum() < 6
