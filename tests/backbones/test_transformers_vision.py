"""``transformers/`` for images: pixels, tokens and poolings of several families, against the library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_images
from tiny_transformer import save
from tiny_vision import MODELS, SIZE, save_vision

import embedpipe
from embedpipe.backbones import describe_layers, load_backbone, load_with_options, options_from_spec, resolve_options
from embedpipe.backbones.engines.exporting import export
from embedpipe.backbones.image_backbone import NAMES
from embedpipe.backbones.layers.embedder import Embedder, normalise
from embedpipe.backbones.options import BackboneOptions
from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import UsageError, WeightsError

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"

#: Tokens before the patches: a class token, and registers.
PREFIX = {"registers": 5, **dict.fromkeys(("dinov2", "vit", "vit-mae", "clip-vision", "clip"), 1)}

#: The pooling of the features by default: with which each was published.
DEFAULTS = {
    **dict.fromkeys(("dinov2", "registers", "vit", "vit-mae"), "cls"),
    **dict.fromkeys(("swin", "convnextv2", "siglip-vision", "siglip", "clip-vision", "clip"), "pooler"),
    "ijepa": "avg",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with each model, made when it is asked for first."""
    root = tmp_path_factory.mktemp("models")

    def find(kind):
        if not (root / kind).exists():
            save_vision(root / kind, kind)
        return root / kind

    return find


@pytest.fixture(scope="module")
def pictures():
    """Real photos as pixels, as embedpipe converts colour profiles and the processors do not."""
    paths = sorted(PHOTOS.glob("*"))[:20]
    photos = [np.array(Image.open(path).convert("RGB")) for path in paths]
    china, flower = load_sample_images().images
    return [*photos, china, flower, china[:301, :222], flower[:70, :47]]


def reference(folder, pixels):
    """Return the library's tokens and pooled vectors, one image at a time."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    run = getattr(model, "get_image_features", model)
    if model.config.model_type == "vit_mae":
        model.config.mask_ratio = 0.0
    with torch.inference_mode():
        outputs = [run(image[None]) for image in pixels]
    pooled = getattr(outputs[0], "pooler_output", None)
    tokens = torch.cat([output.last_hidden_state for output in outputs])
    return tokens, None if pooled is None else torch.cat([output.pooler_output.flatten(1) for output in outputs])


@pytest.mark.parametrize("kind", MODELS)
def test_pixels_and_vectors_equal_the_librarys(kind, folder, pictures):
    backbone = load_backbone(f"transformers/{folder(kind)}", device="cpu")
    processor = transformers.AutoImageProcessor.from_pretrained(folder(kind))
    theirs = torch.cat([processor(images=Image.fromarray(p), return_tensors="pt")["pixel_values"] for p in pictures])
    items = np.stack([backbone.prepare(picture).value for picture in pictures])
    torch.testing.assert_close(
        normalise(torch.from_numpy(items), backbone.spec.preprocessing), theirs, rtol=0, atol=1e-5
    )
    assert backbone.spec.modality == "image"
    assert backbone.notes == []
    assert backbone.spec.layers[0].pooling == DEFAULTS[kind]

    tokens, pooled = reference(folder(kind), theirs)
    first = PREFIX.get(kind, 0)
    mean = tokens[:, first:].mean(1) if tokens.ndim == 3 else tokens.mean((2, 3))
    expected = {"mean": mean, "pooler": pooled}
    if first:
        expected |= {"cls": tokens[:, 0], "cls+mean": torch.cat([tokens[:, 0], mean], 1)}
    for pooling, vectors in expected.items():
        if vectors is None:
            continue
        chosen = load_backbone(f"transformers/{folder(kind)}", pooling=pooling, device="cpu")
        ours = torch.from_numpy(chosen.forward(items)["embedding"])
        assert torch.cosine_similarity(ours, vectors).min() >= 0.9999
        torch.testing.assert_close(ours, vectors, rtol=1e-3, atol=1e-4)
        again = load_with_options(options_from_spec(chosen.spec, str(folder(kind))), torch.device("cpu"))
        assert again.spec == chosen.spec
    default = "mean" if DEFAULTS[kind] == "avg" else DEFAULTS[kind]
    torch.testing.assert_close(
        torch.from_numpy(backbone.forward(items)["embedding"]), expected[default], rtol=1e-3, atol=1e-4
    )


def test_masks_of_pretraining_are_left_out_and_patches_keep_their_order(folder, pictures):
    backbone = load_backbone(f"transformers/{folder('vit-mae')}", layer=("features", "layers.0"), device="cpu")
    items = [backbone.prepare(picture).value for picture in pictures[:3]]
    first, again = backbone.forward(items), backbone.forward(items[::-1])
    for column in first:
        np.testing.assert_allclose(first[column], again[column][::-1], rtol=1e-5, atol=1e-6)
    pixels = normalise(torch.from_numpy(np.stack(items)), backbone.spec.preprocessing)
    with torch.inference_mode():
        tokens = backbone.network.features(backbone.network.module, pixels)
        other = backbone.network.features(backbone.network.module, pixels)
    assert tokens.shape == (3, 17, 32)
    torch.testing.assert_close(tokens, other)


def test_exporters_trace_any_number_of_images(folder):
    network = load_backbone(f"transformers/{folder('vit-mae')}", device="cpu").network
    embedder = Embedder(network, (LayerSpec("features", "cls", 32),), NAMES)
    batch = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    program = export(embedder, (batch,))
    (expected,) = embedder(batch[:2])
    torch.testing.assert_close(program.module()(batch[:2])[0], expected)


def test_layers_are_listed_and_left_out(folder):
    name = f"transformers/{folder('registers')}"
    stages = [stage.name for stage in describe_layers(name)]
    assert [stage for stage in stages if "layer.0" in stage or "layer.1" in stage]
    earlier = load_backbone(name, drop_last=1, device="cpu")
    assert earlier.spec.layers[0].name != "features"
    both = load_backbone(name, layer=("features", stages[-1]), pooling="cls+mean", device="cpu")
    assert {layer.dim for layer in both.spec.layers} == {64}


def test_poolings_that_a_model_does_not_have_are_refused(folder):
    with pytest.raises(UsageError, match=r"pooling='pooler'.*none: use cls, mean"):
        load_backbone(f"transformers/{folder('ijepa')}", pooling="pooler", device="cpu")
    for pooling in ("cls", "cls+mean"):
        with pytest.raises(UsageError, match=rf"pooling='{pooling}'.*needs a class token".replace("+", r"\+")):
            load_backbone(f"transformers/{folder('ijepa')}", pooling=pooling, device="cpu")
    with pytest.raises(UsageError, match=r"pooling='pooler'.*features only"):
        load_backbone(f"transformers/{folder('vit')}", pooling="pooler", layer=("features", "layers.0"), device="cpu")


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_configuration_decides_the_modality(kind, folder, tmp_path):
    name = f"transformers/{folder(kind)}"
    assert resolve_options(BackboneOptions(backbone=name)).modality == "image"
    with pytest.raises(UsageError, match="embeds images, not texts"):
        resolve_options(BackboneOptions(backbone=name, modality="text"))
    text = save(tmp_path / "bert", "bert")
    assert resolve_options(BackboneOptions(backbone=text)).modality == "text"
    moved = resolve_options(BackboneOptions(backbone="transformers/org/name", weights=str(folder(kind))))
    assert moved.modality == "image"


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_files_are_named_without_a_network(file, folder, tmp_path):
    shutil.copytree(folder("dinov2"), tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    for options in ({"backbone": f"transformers/{tmp_path / 'model'}"}, {"backbone": "transformers/org/name"}):
        with pytest.raises(WeightsError, match=rf"{tmp_path / 'model' / file}.*does not exist"):
            load_backbone(**options, weights=str(tmp_path / "model") if "org" in options["backbone"] else "default")


def test_missing_part_of_the_weights_is_named(folder, tmp_path):
    shutil.copytree(folder("dinov2"), tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"2 files of weights.*model-00001-of-00002.safetensors' does not exist"):
        load_backbone(f"transformers/{tmp_path / 'model'}")


@pytest.mark.parametrize("provider", ["transformers", "sentence-transformers"])
def test_file_of_weights_is_refused_and_not_replaced_by_the_folders(provider, folder, tmp_path):
    network = load_backbone(f"transformers/{folder('vit')}", device="cpu").network
    torch.save({name: tensor + 1 for name, tensor in network.module.state_dict().items()}, tmp_path / "tuned.pth")
    with pytest.raises(
        WeightsError, match=r"must be the folder of a model, with config.json, got the file .*tuned.pth"
    ):
        load_backbone(f"checkpoint/{tmp_path / 'tuned.pth'}", arch=f"{provider}/{folder('vit')}", device="cpu")


def test_configuration_is_part_of_the_fingerprint(folder, tmp_path):
    shutil.copytree(folder("vit"), tmp_path / "vit")
    file = tmp_path / "vit/config.json"
    before = load_backbone(f"transformers/{tmp_path / 'vit'}", device="cpu").spec
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "transformers_version": "0"}))
    assert load_backbone(f"transformers/{tmp_path / 'vit'}", device="cpu").spec == before
    file.write_text(json.dumps({**settings, "hidden_act": "relu"}))
    after = load_backbone(f"transformers/{tmp_path / 'vit'}", device="cpu").spec
    assert list(before.diff(after)) == ["config_sha256"]


def test_preprocessing_without_a_recipe_is_refused_or_reported(folder, tmp_path):
    def load(processor, **options):
        processor.save_pretrained(tmp_path / "vit")
        return load_backbone(f"transformers/{tmp_path / 'vit'}", device="cpu", **options)

    shutil.copytree(folder("vit"), tmp_path / "vit")
    # DINOv3's scales floating-point pixels.
    (note,) = load(transformers.DINOv3ViTImageProcessor(**SIZE)).notes
    assert note.startswith("pixels differ from those of DINOv3ViTImageProcessor by up to 0.")
    for processor, reason in (
        (transformers.ViTImageProcessor(size={"shortest_edge": 32}), "without a crop gives images of several sizes"),
        (transformers.ViTImageProcessor(size={"height": 48, "width": 48}), "must embed images of 48 x 48"),
        (transformers.Siglip2ImageProcessor(), r"any shape in up to 256 patches \(NaFlex.*patch16-224 in place"),
        (transformers.EfficientNetImageProcessor(**SIZE, rescale_offset=True), "more than to scale"),
    ):
        with pytest.raises(WeightsError, match=reason):
            load(processor)
    for processor, reason in (
        (transformers.ViTImageProcessor(do_resize=False), "do_resize must be true, with a size"),
        (transformers.Siglip2ImageProcessor(), r"any shape in up to 256 patches"),
    ):
        with pytest.raises(WeightsError, match=reason):
            load(processor, image_size=64)


@pytest.mark.parametrize("factor", [1 / 255, 1 / 127.5, None])
def test_normalisation_with_any_scale_is_the_processors(factor, folder, tmp_path, pictures):
    shutil.copytree(folder("vit"), tmp_path / "vit")
    settings = {"do_rescale": False, "image_mean": [100.0] * 3, "image_std": [50.0] * 3}
    if factor:
        settings = {"rescale_factor": factor, "image_mean": [0.9, 0.5, 0.1], "image_std": [0.5] * 3}
    processor = transformers.ViTImageProcessor(**SIZE, **settings)
    processor.save_pretrained(tmp_path / "vit")
    backbone = load_backbone(f"transformers/{tmp_path / 'vit'}", device="cpu")
    theirs = processor(images=Image.fromarray(pictures[-1]), return_tensors="pt")["pixel_values"]
    item = torch.from_numpy(backbone.prepare(pictures[-1]).value)[None]
    torch.testing.assert_close(normalise(item, backbone.spec.preprocessing), theirs, rtol=0, atol=1e-5)


def test_store_and_transformer_take_it(folder, photos, tmp_path):
    name = f"transformers/{folder('dinov2')}"
    store = embedpipe.embed(photos, tmp_path / "store", backbone=name, device="cpu")
    assert store.summary.embedded == 12
    assert embedpipe.embed(photos, tmp_path / "store", backbone=name, device="cpu").summary.reused == 12
    paths = [photos / id for id in store.ids()]
    vectors = embedpipe.EmbeddingTransformer(name, device="cpu", store=None).fit_transform(paths)
    np.testing.assert_allclose(vectors, store.to_numpy(), rtol=1e-5, atol=1e-6)


def test_code_that_a_processor_names_is_never_run(folder, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    shutil.copytree(folder("vit"), tmp_path / "evil")
    (tmp_path / "evil/evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Processor: pass\n")
    file = tmp_path / "evil/preprocessor_config.json"
    settings = {**json.loads(file.read_text()), "auto_map": {"AutoImageProcessor": "evil.Processor"}}
    file.write_text(json.dumps({**settings, "image_processor_type": "EvilProcessor"}))
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail("it asks"))
    with pytest.raises(WeightsError, match=r"transformers cannot load.*custom code"):
        load_backbone(f"transformers/{tmp_path / 'evil'}", device="cpu")
    assert not ran.exists()


def test_random_weights_need_no_file_of_weights(folder, tmp_path):
    shutil.copytree(folder("swin"), tmp_path / "swin")
    (tmp_path / "swin/model.safetensors").unlink()
    specs = [load_backbone(f"transformers/{tmp_path / 'swin'}", weights="none", device="cpu").spec for _ in range(2)]
    assert specs[0] == specs[1]
    assert not specs[0].pretrained
