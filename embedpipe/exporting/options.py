"""Options of `embedpipe.export`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, require_one_of

ExportPrecision = Literal["float32", "float16", "int8"]
ExportFormat = Literal["onnx", "openvino"]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is written, and on how many rows it is compared.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    precision: ExportPrecision = field(
        default="float32",
        metadata={
            "help": "float16: half the size; int8: a quarter, calibrated on rows that the head was fitted on. Refused "
            "if it may cost a point of accuracy on held-out rows."
        },
    )
    format: ExportFormat = field(
        default="onnx",
        metadata={"help": "onnx: for ONNX Runtime; openvino: for OpenVINO (extra cpu)."},
    )
    check_rows: int = field(
        default=200,
        metadata={
            "help": "Most held-out rows on which the exported model is compared with the head, a random sample of "
            "them; the accuracy of float16 and int8 is measured on all."
        },
    )

    def __post_init__(self) -> None:
        require_one_of("precision", self.precision, get_args(ExportPrecision))
        require_one_of("format", self.format, get_args(ExportFormat))
        if self.check_rows < 1:
            raise UsageError(f"{option('check_rows')} must be >= 1, got {self.check_rows}")
