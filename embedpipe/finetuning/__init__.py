"""Is fine-tuning worth it, and how: learning curves, the verdict, and the hand-off to a trained network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.lazy import lazy_names

if TYPE_CHECKING:
    from embedpipe.finetuning.advice import Advice
    from embedpipe.finetuning.advise_options import AdviseOptions
    from embedpipe.finetuning.advising import advise
    from embedpipe.finetuning.benchmark_options import BenchmarkOptions
    from embedpipe.finetuning.benchmark_result import Benchmark
    from embedpipe.finetuning.benchmarking import benchmark
    from embedpipe.finetuning.corruptions import corrupt
    from embedpipe.finetuning.estimator import FineTunedClassifier
    from embedpipe.finetuning.handing_off import finetune
    from embedpipe.finetuning.options import FinetuneOptions
    from embedpipe.finetuning.result import HandOff
    from embedpipe.finetuning.role_options import RoleOptions

_HOME = {
    "Advice": "advice",
    "AdviseOptions": "advise_options",
    "Benchmark": "benchmark_result",
    "BenchmarkOptions": "benchmark_options",
    "FineTunedClassifier": "estimator",
    "FinetuneOptions": "options",
    "HandOff": "result",
    "RoleOptions": "role_options",
    "advise": "advising",
    "benchmark": "benchmarking",
    "corrupt": "corruptions",
    "finetune": "handing_off",
}

__all__ = [
    "Advice",
    "AdviseOptions",
    "Benchmark",
    "BenchmarkOptions",
    "FineTunedClassifier",
    "FinetuneOptions",
    "HandOff",
    "RoleOptions",
    "advise",
    "benchmark",
    "corrupt",
    "finetune",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
