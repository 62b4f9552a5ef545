"""The precisions in which a network can run."""

from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "int8"]
