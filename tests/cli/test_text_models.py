"""A text model without pooler through all verbs, and texts that a tokenizer does not know, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import run
from safetensors.torch import load_file, save_file
from tiny_transformer import save

from embedpipe.backbones import load as loading


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder as BertForMaskedLM saves it: without the pooler, which the library makes of random values."""
    save(tmp_path / "mlm", "bert")
    file = tmp_path / "mlm/model.safetensors"
    state = {f"bert.{name}": tensor for name, tensor in load_file(file).items() if "pooler" not in name}
    save_file(state, file, metadata={"format": "pt"})
    return tmp_path / "mlm"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rows = [f"{'cat' if i % 2 else 'man'},{'the cat sits' if i % 2 else 'a man outside'}{' .' * i}" for i in range(20)]
    file = tmp_path / "texts.csv"
    file.write_text("label,body\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return file


def test_store_of_a_model_without_pooler_is_resumed_and_used(
    model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, head = tmp_path / "store", tmp_path / "head"
    embed = ("embed", texts, "--text", "body", "--backbone", f"transformers/{model}", "--to", store)
    for arguments in (
        embed,
        ("fit", store, "--head", "centroid", "--to", head),
        embed,
        ("predict", head, texts, "--text", "body", "--weights", model, "--to", tmp_path / "predictions.csv"),
        ("search", store, "the cat sits", "--weights", model, "-k", "1"),
        ("verify", store, "--weights", model, "--sample", "0"),
    ):
        monkeypatch.setattr(loading, "_cache", type(loading._cache)())  # as another process, with another random pooler
        shown = run(*arguments)
        assert shown.exit_code == 0, shown.output
    assert "20 reused" in run(*embed).stdout
    assert "RANDOM" not in shown.output


def test_texts_of_unknown_signs_are_counted_by_each_verb(model: Path, texts: Path, tmp_path: Path) -> None:
    unknown = tmp_path / "unknown.csv"
    unknown.write_text("label,body\nhappy,\U0001f600\nangry,\U0001f621\U0001f621\nknown,the cat\n", encoding="utf-8")
    options = ("--text", "body", "--backbone", f"transformers/{model}")
    shown = run("embed", unknown, *options, "--to", tmp_path / "store").stdout
    assert "unknown words or signs, which the tokenizer replaces by one token: 2 in 2 texts" in shown
    assert "texts of unknown words or signs only, whose vectors say nothing of their content: 2" in shown
    assert run("embed", texts, *options, "--to", tmp_path / "known", "-q").exit_code == 0
    assert run("fit", tmp_path / "known", "--head", "centroid", "--to", tmp_path / "head", "-q").exit_code == 0
    predict = ("predict", tmp_path / "head", unknown, "--text", "body", "--weights", model)
    assert "of unknown words or signs only" in run(*predict, "--to", tmp_path / "p.csv").output
    search = run("search", tmp_path / "known", "\U0001f600", "--weights", model)
    assert "of unknown words or signs only" in search.output
