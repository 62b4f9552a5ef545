"""LoRA: low-rank additions to linear layers are trained and merged into the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from coloured import noise
from conftest import TINY
from safetensors.torch import load_file

import embedpipe
from embedpipe.backbones import ReloadOptions
from embedpipe.errors import UsageError
from embedpipe.finetuning.advice.pilot import time_training
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions
from embedpipe.finetuning.split_rows import read_split_rows
from embedpipe.finetuning.training.lora import add_lora, merge_lora, merged_state

peft = pytest.importorskip("peft", reason="the extra finetune is not installed")
VIT = {"backbone": "timm/test_vit", "weights": "none"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 24 images, embedded by a small transformer with random weights."""
    root = tmp_path_factory.mktemp("lora")
    embedpipe.embed(noise(root / "photos", 24), root / "store", **VIT)
    return root / "store"


def test_only_linear_layers_are_trained(store: Path, tmp_path: Path) -> None:
    options = {"near_duplicates": "off", "lora": 2, "epochs": 2, "batch_size": 8, "patience": 9}
    result = embedpipe.finetune(store, to=tmp_path / "tuned", weights="none", **options)
    assert result.initial_check.largest_logit_difference < 1e-3
    before = embedpipe.load_backbone(**VIT).network.module.state_dict()
    after = load_file(tmp_path / "tuned" / "last.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert {name.split(".", 2)[2] for name in changed} <= {
        "attn.qkv.weight",
        "attn.proj.weight",
        "mlp.fc1.weight",
        "mlp.fc2.weight",
    }
    name = max(changed, key=lambda key: float((after[key] - before[key]).norm()))
    assert torch.linalg.matrix_rank(after[name].double() - before[name].double(), rtol=1e-3) == 2
    again = embedpipe.load_backbone(f"checkpoint/{result.backbone}")
    assert all(
        torch.equal(load_file(result.backbone)[name], tensor)
        for name, tensor in again.network.module.state_dict().items()
    )


def test_merged_network_equals_the_adapted_network() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    x, original = torch.randn(7, 5), {name: tensor.clone() for name, tensor in module.state_dict().items()}
    first = module(x)
    module[2].requires_grad_(False)
    add_lora(module, 2, "a network", seed=0)
    assert torch.equal(module(x), first)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert trained == {"0.lora_A.default.weight", "0.lora_B.default.weight"}
    with torch.no_grad():
        module[0].lora_B["default"].weight.fill_(0.3)
    adapted, state = module(x), merged_state(module)
    merge_lora(module)
    torch.testing.assert_close(module(x), adapted)
    assert not torch.allclose(adapted, first)
    assert module.state_dict().keys() == original.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


def test_layers_with_a_shared_weight_are_left_out() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    module[1].weight = module[0].weight
    add_lora(module, 2, "a network", seed=0)
    assert [name for name, part in module.named_modules() if hasattr(part, "lora_A")] == ["2"]


def test_invalid_lora_options_are_refused(store: Path, tmp_path: Path) -> None:
    tiny = embedpipe.embed(store.parent / "photos", tmp_path / "tiny", backbone=TINY)
    with pytest.raises(UsageError, match=r"lora needs linear layers, as transformers have, and .* has none"):
        embedpipe.finetune(tiny, to=tmp_path / "tuned", lora=4, near_duplicates="off", trust=True)
    split = read_split_rows(tiny, "label", SplitOptions(near_duplicates="off"))
    with pytest.raises(UsageError, match="lora needs linear layers"):  # its time is that of a training with LoRA
        time_training(tiny, split, FineTuneOptions(lora=4), ReloadOptions(trust=True), "cpu")
    with pytest.raises(UsageError, match="lora must be a rank from 1 to 4096, got 0"):
        embedpipe.finetune(tiny, to=tmp_path / "tuned", lora=0)
    with pytest.raises(UsageError, match="freeze_until cannot be combined with lora=4"):
        embedpipe.finetune(tiny, to=tmp_path / "tuned", lora=4, freeze_until="stem")
