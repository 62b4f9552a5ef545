"""LoRA: small matrices are trained beside a transformer's linear layers, and become part of their weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from coloured import noise
from conftest import TINY
from safetensors.torch import load_file

import embedpipe
from embedpipe.errors import UsageError
from embedpipe.finetuning.training.lora import add_lora, merge_lora, merged_state

peft = pytest.importorskip("peft", reason="the extra finetune is not installed")
VIT = {"backbone": "timm/test_vit", "weights": "none"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four pictures as a small transformer with random weights sees them; the weights are kept, too."""
    root = tmp_path_factory.mktemp("lora")
    embedpipe.embed(noise(root / "photos", 24), root / "store", **VIT)
    return root / "store"


def test_additions_are_trained_and_merged(store: Path, tmp_path: Path) -> None:
    options = {"near_duplicates": "off", "lora": 2, "epochs": 2, "batch_size": 8, "patience": 9}
    found = embedpipe.finetune(store, to=tmp_path / "tuned", weights="none", **options)
    assert found.step_zero.largest < 1e-3
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
    # A sum of so many columns has that rank.
    name = max(changed, key=lambda one: float((after[one] - before[one]).norm()))
    assert torch.linalg.matrix_rank(after[name].double() - before[name].double(), rtol=1e-3) == 2
    again = embedpipe.load_backbone(f"checkpoint/{found.backbone}")
    assert all(
        torch.equal(load_file(found.backbone)[name], tensor)
        for name, tensor in again.network.module.state_dict().items()
    )


def test_merging_changes_nothing_but_the_form() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    x, plain = torch.randn(7, 5), {name: tensor.clone() for name, tensor in module.state_dict().items()}
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
    assert module.state_dict().keys() == plain.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


def test_layers_that_share_a_weight_get_none() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    module[1].weight = module[0].weight
    add_lora(module, 2, "a network", seed=0)
    assert [name for name, part in module.named_modules() if hasattr(part, "lora_A")] == ["2"]


def test_what_has_no_linear_layers_is_refused(store: Path, tmp_path: Path) -> None:
    tiny = embedpipe.embed(store.parent / "photos", tmp_path / "tiny", backbone=TINY)
    with pytest.raises(UsageError, match=r"lora=4: .* has no linear layers to add to, as transformers have"):
        embedpipe.finetune(tiny, to=tmp_path / "tuned", lora=4, near_duplicates="off", trust=True)
    with pytest.raises(UsageError, match="lora=0 is no rank of 1 or more: 8 is usual"):
        embedpipe.finetune(tiny, to=tmp_path / "tuned", lora=0)
    with pytest.raises(UsageError, match="lora=4 freezes the network already: leave out freeze_until"):
        embedpipe.finetune(tiny, to=tmp_path / "tuned", lora=4, freeze_until="stem")
