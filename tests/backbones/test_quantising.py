"""Networks in 8-bit integers: which are offered, and that the same one always comes out."""

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
from embedpipe.backbones.engines.quantising import FARTHEST, movement, quantise
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.errors import BackboneError

pytest.importorskip("openvino")
pytest.importorskip("nncf")

IMAGE = (32, 32, 3)


class Small(nn.Module):
    """A convolution, one of each channel alone, and one more."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.alone = nn.Conv2d(8, 8, 3, groups=8)
        self.last = nn.Conv2d(8, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = self.last(self.alone(self.first(x).relu()).relu()).mean((2, 3))
        return mean


class Wide(Small):
    """One channel reaches far and tells nothing: 8 bits for all of them leave none for the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.alone(self.first(x).relu()).relu()
        far = torch.cat([1e5 + 1e5 * x[:, :1], x[:, 1:]], dim=1)
        weights = torch.cat([0 * self.last.weight[:, :1], self.last.weight[:, 1:]], dim=1)
        return nn.functional.conv2d(far, weights).mean((2, 3))


def network(module: type[Small] = Small) -> Any:
    """Return a network as OpenVINO has it."""
    backbone = load_backbone("python:tiny_backbone.make", device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = module().eval().requires_grad_(False)
    image = dataclasses.replace(backbone.network, module=made)
    return convert(Embedder(image, backbone.spec.layers, ("pixels",)), (torch.zeros(2, *IMAGE, dtype=torch.uint8),))


def run(model: Any, precision: Any, pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    engine = OpenVinoEngine(model, precision, 1, IMAGE)
    return np.asarray(engine.run([(torch.from_numpy(pictures),)])[0][0])


def test_quantised_vectors_stay_near_the_exact_ones() -> None:
    plain = network()
    quantised = quantise(plain, IMAGE)
    pictures = np.random.default_rng(1).integers(0, 256, (9, *IMAGE), dtype=np.uint8)
    exact, moved = run(plain, "fp32", pictures), run(quantised, "int8", pictures)
    assert moved.shape == exact.shape == (9, 12)
    assert 0 < np.abs(exact - moved).max() < 0.1 * np.abs(exact).max()
    assert any(one.get_type_name() == "FakeQuantize" for one in quantised.get_ops())
    assert not any(one.get_type_name() == "FakeQuantize" for one in plain.get_ops())


def test_the_same_network_always_comes_out() -> None:
    plain = network()
    pictures = np.random.default_rng(2).integers(0, 256, (5, *IMAGE), dtype=np.uint8)
    first, second = (run(quantise(plain, IMAGE), "int8", pictures) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_network_whose_vectors_move_too_far_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"int8 is not offered for this network: .* by \d+ % .*; take bf16"):
        quantise(network(Wide), IMAGE)


def test_nothing_is_said_nor_told_to_anyone(capfd: pytest.CaptureFixture[str]) -> None:
    known = sys.modules.get("openvino_telemetry")
    quantise(network(), IMAGE)
    assert capfd.readouterr() == ("", "")
    assert sys.modules.get("openvino_telemetry") is known


def test_movement_is_relative_to_the_spread_of_the_layer_that_moves_most() -> None:
    vectors = np.array([[3.0, 5.0], [-1.0, 5.0]], np.float32)  # 2 from their mean
    moved = vectors + np.array([[0.0, 1.0], [0.0, -1.0]], np.float32)
    other = 100 * vectors
    assert movement([vectors, other], [moved, other]) == pytest.approx(0.5)
    assert movement([vectors], [vectors]) == 0 < FARTHEST


def test_movement_of_vectors_that_are_all_the_same_is_too_far() -> None:
    vectors = np.ones((4, 2), np.float32)
    assert movement([vectors], [vectors + np.float32(0.1)]) > FARTHEST


def test_crops_are_always_the_same_and_share_nothing_between_the_parts() -> None:
    crops = crop_photographs((24, 20, 3), 12, "fit")
    assert crops.shape == (12, 24, 20, 3)
    assert crops.dtype == np.uint8
    np.testing.assert_array_equal(crops, crop_photographs((24, 20, 3), 12, "fit"))
    assert len(np.unique(crops.reshape(12, -1), axis=0)) == 12
    others = crop_photographs((24, 20, 3), 12, "check")
    assert not (crops[:, None] == others[None]).all(axis=(2, 3, 4)).any()
    grey = (crops == crops[..., :1]).all(axis=(1, 2, 3))
    assert 0 < grey.sum() < 6
