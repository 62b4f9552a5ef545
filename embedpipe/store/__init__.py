"""The feature store: vectors, labels and metadata in a Delta Lake table of plain Parquet files."""

from embedpipe.store.feature_store import FeatureStore

__all__ = ["FeatureStore"]
