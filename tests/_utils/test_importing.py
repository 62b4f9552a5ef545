"""Imports without torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from embedpipe._utils.importing import compiler_deferred

with compiler_deferred():
    import timm
    from timm.models.naflexvit import NaFlexVit  # has functions that torch must not compile
assert not {"torch._dynamo", "torch._dynamo.utils", "sympy"} & {*sys.modules}
"""

USES = {
    "the compiler compiles": """
import torch
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2.0, 2.0]
""",
    "torchvision asks whether a device compiles": """
from torchvision.ops import roi_align
function = sys.modules["torchvision.ops.roi_align"].is_compile_supported
assert function("cpu") == sys.modules["torch._dynamo.utils"].is_compile_supported("cpu")
""",
    "anything else of the compiler is the compiler's": """
with compiler_deferred():
    from torch._dynamo.utils import counters
    import torch._dynamo.config
    from torch import _dynamo
assert counters is sys.modules["torch._dynamo.utils"].counters
assert _dynamo.optimize is sys.modules["torch._dynamo"].optimize
""",
}


@pytest.mark.long
@pytest.mark.parametrize("use", USES)
def test_the_compiler_is_imported_when_it_is_used(use: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT + USES[use]], check=True)
