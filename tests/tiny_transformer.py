"""Small text models of several families with random weights and a real tokenizer of a dozen words."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "the", "cat", "sits", "outside", "man", "a", ".", "<mask>"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def save_tokenizer(folder: Path, max_length: int, side: str = "right") -> None:
    """Save a real fast tokenizer of a dozen words."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, cls_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=max_length, padding_side=side,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)


def save(folder: Path, kind: str, max_length: int = int(1e30), side: str = "right") -> str:
    """Save a small model with random weights; return its backbone name."""
    common = {"vocab_size": len(WORDS), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = {
        "bert": lambda: transformers.BertConfig(**SMALL, **common, max_position_embeddings=24),
        "roberta": lambda: transformers.RobertaConfig(**SMALL, **common, max_position_embeddings=24),
        "t5": lambda: transformers.T5Config(
            **common, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=1
        ),
        "gpt2": lambda: transformers.GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=24),
    }[kind]()
    torch.manual_seed(1)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder, max_length, side)
    return f"transformers/{folder}"
