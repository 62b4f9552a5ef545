"""Loaded backbones: frozen, exact, the same in every thread and process."""

import io
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torchvision import transforms

from embedpipe._utils.device import arithmetic, choose_device
from embedpipe.backbones import (
    Backbone,
    BackboneOptions,
    BackboneSpec,
    LayerSpec,
    load_backbone,
    load_with_options,
    options_from_spec,
)
from embedpipe.backbones.layers.embedder import normalise
from embedpipe.backbones.weights.tensors import hash_tensors
from embedpipe.decoding import Preprocessing
from embedpipe.errors import BackboneError, DecodeError, StoreError, UsageError

NAME = "timm/test_resnet"


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(NAME, weights="none", device="cpu")


@pytest.fixture(scope="module")
def batch(backbone):
    return np.random.default_rng(0).integers(0, 256, (3, *backbone.spec.preprocessing.crop, 3), dtype=np.uint8)


def test_pixels_are_normalised_as_by_torchvision(backbone, batch):
    recipe = backbone.spec.preprocessing
    reference = transforms.Compose([transforms.ToTensor(), transforms.Normalize(recipe.mean, recipe.std)])
    actual = normalise(torch.from_numpy(batch), backbone.network.preprocessing)
    assert torch.equal(actual, torch.stack([reference(picture) for picture in batch]))
    assert actual.is_contiguous(memory_format=torch.channels_last)


def test_payloads_become_pixels_or_a_decode_error(backbone):
    height, width = backbone.spec.preprocessing.crop
    data = io.BytesIO()
    Image.new("RGB", (300, 200), (10, 20, 30)).save(data, "PNG")
    pixels = backbone.prepare(data.getvalue()).value
    assert (pixels.shape, pixels.dtype) == ((height, width, 3), np.uint8)
    assert (pixels == (10, 20, 30)).all()
    with pytest.raises(DecodeError):
        backbone.prepare(b"not a picture")


def test_vectors_are_float32_also_for_read_only_batches(backbone, batch):
    frozen = batch.copy()
    frozen.flags.writeable = False
    (vectors,) = backbone.forward(frozen).values()
    assert (vectors.shape, vectors.dtype) == ((3, 96), np.float32)
    np.testing.assert_array_equal(vectors, backbone.forward(batch[:, :, ::-1].copy()[:, :, ::-1])["embedding"])


@pytest.mark.parametrize("wrong", [(3, 8, 8, 3), (3, 3, 160, 160), (160, 160, 3)])
def test_wrong_batches_are_refused(backbone, wrong):
    with pytest.raises(BackboneError, match=r"must be uint8 \(n, 160, 160, 3\), got"):
        backbone.forward(np.zeros(wrong, np.uint8))
    with pytest.raises(BackboneError, match="float32"):
        backbone.forward(np.zeros((1, 160, 160, 3), np.float32))
    for images, got in (([], "no image"), ([np.zeros((8, 8, 3), np.uint8), np.zeros(wrong, np.uint8)], "images of ")):
        with pytest.raises(BackboneError, match=rf"must be images of \(160, 160, 3\), got {got}"):
            backbone.forward(images)


@pytest.mark.parametrize("thaw", [lambda m: m.layer2.train(), lambda m: m.fc.requires_grad_(True)])
def test_trainable_network_is_refused(batch, thaw):
    backbone = load_backbone("timm/test_resnet", weights="none", device="cpu")
    before = backbone.forward(batch)["embedding"]
    thaw(backbone.network.module)
    try:
        with pytest.raises(BackboneError, match="train mode"):
            backbone.forward(batch)
    finally:
        backbone.network.module.eval().requires_grad_(False)
    np.testing.assert_array_equal(backbone.forward(batch)["embedding"], before)


def test_threads_get_the_layers_of_their_backbone(batch):
    names = ["layer1", "layer2", "layer3", "layer4"]
    backbones = {name: load_backbone(NAME, weights="none", layer=(name,), device="cpu") for name in names}
    assert len({id(b.network) for b in backbones.values()}) == 1
    alone = {name: b.forward(batch) for name, b in backbones.items()}
    wrong = []

    def work(name):
        for _ in range(5):
            (actual,), (expected,) = backbones[name].forward(batch).values(), alone[name].values()
            if not np.array_equal(actual, expected):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_load_one_shared_network():
    loaded = []
    options = BackboneOptions("timm/test_vit3", "none")
    threads = [threading.Thread(target=lambda: loaded.append(load_with_options(options, "cpu"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(b.network) for b in loaded}) == 1
    assert loaded[0].to("cpu") is loaded[0]


def test_precision_is_used_and_part_of_the_fingerprint(backbone, batch):
    half = load_backbone(NAME, weights="none", precision="bf16", device="cpu")
    exact, rough = backbone.forward(batch)["embedding"], half.forward(batch)["embedding"]
    assert rough.dtype == np.float32
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, atol=0.05 * np.abs(exact).max())
    assert half.spec.fingerprint() != backbone.spec.fingerprint()
    assert half.spec.diff(backbone.spec) == {"precision": ("bf16", "fp32")}


def test_autocast_of_the_caller_does_not_change_fp32(backbone, batch):
    expected = backbone.forward(batch)["embedding"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(backbone.forward(batch)["embedding"], expected)


def test_tf32_is_off_inside_a_cuda_pass_and_restored_after():
    """The switches exist without a GPU; the pass itself needs one."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [switch.fp32_precision for switch in switches]
    with arithmetic("fp32", torch.device("cuda")):
        assert [switch.fp32_precision for switch in switches] == ["ieee", "ieee"]
    assert [switch.fp32_precision for switch in switches] == before
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gpu_returns_the_vectors_of_the_cpu(backbone, batch):
    there = backbone.to("cuda").forward(batch)["embedding"]
    here = backbone.forward(batch)["embedding"]
    assert (np.linalg.norm(there - here, axis=1) <= 1e-4 * np.linalg.norm(here, axis=1)).all()


def test_random_weights_are_seeded_without_changing_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    spec = load_backbone("timm/test_vit2", weights="none", device="cpu").spec
    assert torch.equal(torch.rand(3), expected)
    assert not spec.pretrained
    assert options_from_spec(spec).weights == "none"


def test_device_is_chosen_with_a_reason():
    device, reason = choose_device()
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert reason.startswith(f"{device.type}: ")
    assert device.type == "cuda" or "torch build" in reason
    assert choose_device("cpu") == (torch.device("cpu"), "cpu: as requested")


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", "mps"])
def test_device_that_does_not_work_is_refused_with_the_reason(name):
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(UsageError, match=f"device .*'{name}'"):
        choose_device(name)
    with pytest.raises(UsageError, match=f"device .*'{name}'"):
        load_backbone(NAME, weights="none", device=name)


def test_provenance_names_the_weights_and_the_libraries(backbone):
    assert backbone.provenance["weights"] == "random, seeded"
    assert backbone.provenance["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert isinstance(backbone, Backbone)


names = st.text(min_size=1, max_size=12)
layers = st.builds(LayerSpec, names, st.sampled_from(["avg", "cls", "max", "flatten", "none"]), st.integers(1, 9999))
floats = st.tuples(*[st.floats(0, 1)] * 3)
recipes = st.builds(
    Preprocessing,
    resize=st.one_of(st.tuples(st.integers(1, 999)), st.tuples(st.integers(1, 999), st.integers(1, 999))),
    crop=st.tuples(st.integers(1, 999), st.integers(1, 999)),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]),
    mean=floats,
    std=floats,
    fit=st.sampled_from(["squash", "cover", "border"]),
)
specs = st.builds(
    BackboneSpec,
    names,
    names,
    names,
    st.booleans(),
    st.lists(layers, min_size=1, max_size=3).map(tuple),
    recipes,
    st.sampled_from(["fp32", "fp16", "bf16"]),
)


@settings(max_examples=12)
@given(specs, specs)
def test_spec_survives_json_and_fingerprints_differ_between_specs(spec, other):
    again = BackboneSpec.from_json(spec.to_json())
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()
    assert (spec == other) == (spec.to_json() == other.to_json()) == (not spec.diff(other))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layers": 3}', "null"])
def test_invalid_json_of_a_spec_is_refused(text):
    with pytest.raises(StoreError, match="not a backbone spec"):
        BackboneSpec.from_json(text)


arrays = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=4), elements=st.floats(-9, 9, width=32))
states = st.dictionaries(st.text("abc.", min_size=1, max_size=5), arrays.map(torch.from_numpy), max_size=4)


@settings(max_examples=30)
@given(states, st.randoms())
def test_tensor_hash_covers_names_shapes_dtypes_and_values(state, random):
    shuffled = list(state.items())
    random.shuffle(shuffled)
    expected = hash_tensors(state)
    assert hash_tensors(dict(shuffled)) == expected
    assert hash_tensors({**state, "bn.num_batches_tracked": torch.tensor(3), "epoch": 3}) == expected
    for name, tensor in state.items():
        changes = [tensor.double(), tensor + 1, tensor[None]]
        assert all(hash_tensors({**state, name: changed}) != expected for changed in changes)
        assert hash_tensors({**state, name + "x": tensor}) != expected


def test_tensor_hash_works_for_views_scalars_and_every_dtype():
    base = torch.arange(12.0).reshape(3, 4)
    assert hash_tensors({"a": base.T}) == hash_tensors({"a": base.T.contiguous()})
    kinds = [torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
    assert len({hash_tensors({"a": torch.ones((), dtype=kind)}) for kind in kinds}) == len(kinds)
