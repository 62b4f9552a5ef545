"""The options of the verbs, for type checkers; written by tests/parameter_stub.py."""

from typing import Literal, TypedDict

class AdviseFields(TypedDict, total=False):
    min_gain: float
    shift_margin: float
    time_budget: str | None
    point_worth: str | None
    seeds: int

class BackboneFields(TypedDict, total=False):
    backbone: str
    weights: str
    arch: str | None
    layer: tuple[str, ...]
    drop_last: int
    pooling: tuple[str, ...] | None
    image_size: int | None
    dimensions: int | None
    modality: Literal["image", "text"] | None
    chunk: bool
    frequencies: str | None
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    decode: Literal["full", "scaled"] | None
    range: str | None
    channels: str | None
    offline: bool

class BenchmarkFields(TypedDict, total=False):
    label_counts: tuple[int, ...]
    seeds: int
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    time_budget: str | None

class CleanFields(TypedDict, total=False):
    label: str
    layer: str | None
    seed: int
    group: str | None
    near_duplicates: float
    outlier_z: float
    neighbours: int

class ClustersFields(TypedDict, total=False):
    layer: str | None
    resolution: float
    words: tuple[str, ...]
    label: str
    seed: int

class ComputeFields(TypedDict, total=False):
    device: str | None
    batch_size: int | None
    threads: int | None
    engine: Literal["auto", "torch"]

class EvaluateFields(TypedDict, total=False):
    label: str
    task: Literal["classification", "regression", "multilabel"] | None
    layer: tuple[str, ...]
    features: tuple[str, ...]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    metric: str | None
    margin: float
    folds: int
    repeats: int
    seed: int
    group: str | None
    near_duplicates: float | Literal["off"]
    memory: str | None

class ExportFields(TypedDict, total=False):
    precision: Literal["float32", "float16", "int8"]
    format: Literal["onnx", "openvino"]
    check_rows: int

class FineTuneFields(TypedDict, total=False):
    epochs: int
    batch_size: int
    accumulate: int
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float | None
    weight_decay: float
    layer_decay: float | None
    warmup: float
    patience: int
    freeze_until: str | None
    lora: int | None
    augment: Literal["auto", "none", "light", "strong"]
    batch_norm: Literal["frozen", "trained"]
    train_precision: Literal["fp32", "bf16", "fp16"] | None
    seed: int

class FitFields(TypedDict, total=False):
    label: str
    layer: str | None
    features: tuple[str, ...]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    task: Literal["classification", "regression", "multilabel"] | None
    label_separator: str
    folds: int
    seed: int
    remove_components: int
    class_weight: Literal["balanced"] | None
    sample_weight: str | None
    calibrate: bool
    interval_coverage: float | None
    reject_share: float | None
    reject_by: Literal["probability", "distance"]
    device: str | None
    memory: str | None

class ImportFields(TypedDict, total=False):
    name: str
    modality: Literal["image", "text"]
    vector: str | None
    split: str | None
    labels_from_source: bool
    compress: bool

class LedgerFields(TypedDict, total=False):
    no_ledger: bool

class NextFields(TypedDict, total=False):
    label: str
    layer: str | None
    seed: int
    count: int
    skip_simulation: bool

class PushFields(TypedDict, total=False):
    license: str | None
    private: bool
    exclude: tuple[str, ...]
    keep_paths: bool

class RankFields(TypedDict, total=False):
    sample: int
    seed: int
    random: bool
    task: Literal["classification", "regression", "multilabel"] | None

class ReduceFields(TypedDict, total=False):
    dimensions: int
    whiten: bool
    layer: str | None
    label: str
    sample: int

class ReloadFields(TypedDict, total=False):
    weights: str
    frequencies: str | None
    trust: bool
    offline: bool

class RunFields(TypedDict, total=False):
    device: str | None
    batch_size: int | None
    threads: int | None
    engine: Literal["auto", "torch"]
    add_layer: tuple[str, ...]
    checksum: bool
    prune: bool
    force: bool
    labels_from_source: bool
    compress: bool
    shard: str | None
    runner: Literal["local", "ray"]
    workers: int | None
    gpus_per_worker: float | None
    cpus_per_worker: int | None

class SearchFields(TypedDict, total=False):
    k: int
    where: str | None
    distinct: bool
    exact: bool
    layer: str | None

class ServeFields(TypedDict, total=False):
    host: str
    port: int | None

class ShiftFields(TypedDict, total=False):
    label: str
    layer: str | None
    seed: int
    splits: tuple[str, ...]
    alpha: float
    permutations: int

class SourceFields(TypedDict, total=False):
    prefix: str
    image: str | None
    text: str | None
    id: str | None
    label: str | None
    split: str | None
    allow_root: tuple[str, ...]
    tiff_pages: Literal["first", "all"]
    boxes: str | None
    box_margin: float
    every: str | None
    header: str | None

class SplitFields(TypedDict, total=False):
    group: str | None
    near_duplicates: float | Literal["off"]
    splits: str | None

class ViewFields(TypedDict, total=False):
    host: str
    port: int | None
    layer: str | None
    edit: bool
    no_browser: bool

class AdviseParameters(AdviseFields, FineTuneFields, SplitFields, ReloadFields, LedgerFields, total=False): ...
class BenchmarkParameters(BenchmarkFields, FineTuneFields, SplitFields, ReloadFields, total=False): ...
class CleanParameters(CleanFields, total=False): ...
class ClustersParameters(ClustersFields, ReloadFields, total=False): ...
class DoctorParameters(SourceFields, BackboneFields, ComputeFields, total=False): ...
class EmbedParameters(SourceFields, BackboneFields, RunFields, total=False): ...
class EvaluateParameters(EvaluateFields, ReloadFields, total=False): ...
class ExportParameters(ExportFields, ReloadFields, total=False): ...
class FineTuneParameters(FineTuneFields, SplitFields, ReloadFields, LedgerFields, total=False): ...
class FitParameters(FitFields, ReloadFields, total=False): ...
class ImportVectorsParameters(ImportFields, total=False): ...
class NextParameters(NextFields, total=False): ...
class PredictParameters(SourceFields, ReloadFields, ComputeFields, total=False): ...
class PushParameters(PushFields, total=False): ...
class RankParameters(SourceFields, BackboneFields, ComputeFields, RankFields, total=False): ...
class ReduceParameters(ReduceFields, total=False): ...
class SearchParameters(SearchFields, ReloadFields, ComputeFields, total=False): ...
class ServeParameters(ServeFields, ReloadFields, ComputeFields, total=False): ...
class ShiftParameters(ShiftFields, total=False): ...
class ViewParameters(ViewFields, ReloadFields, ComputeFields, total=False): ...

class EvaluateDatasetsParameters(TypedDict, total=False):
    label: str
    task: Literal["classification", "regression", "multilabel"] | None
    layer: tuple[str, ...]
    features: tuple[str, ...]
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    metric: str | None
    margin: float
    folds: int
    repeats: int
    seed: int
    group: str | None
    near_duplicates: float | Literal["off"]
    memory: str | None
    prefix: str
    image: str | None
    text: str | None
    id: str | None
    split: str | None
    allow_root: tuple[str, ...]
    tiff_pages: Literal["first", "all"]
    boxes: str | None
    box_margin: float
    every: str | None
    header: str | None
    backbone: str
    weights: str
    arch: str | None
    drop_last: int
    pooling: tuple[str, ...] | None
    image_size: int | None
    dimensions: int | None
    modality: Literal["image", "text"] | None
    chunk: bool
    frequencies: str | None
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    decode: Literal["full", "scaled"] | None
    range: str | None
    channels: str | None
    offline: bool
    device: str | None
    batch_size: int | None
    threads: int | None
    engine: Literal["auto", "torch"]

class LoadBackboneParameters(TypedDict, total=False):
    weights: str
    arch: str | None
    layer: tuple[str, ...]
    drop_last: int
    pooling: tuple[str, ...] | None
    image_size: int | None
    dimensions: int | None
    modality: Literal["image", "text"] | None
    chunk: bool
    frequencies: str | None
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    decode: Literal["full", "scaled"] | None
    range: str | None
    channels: str | None
    offline: bool
