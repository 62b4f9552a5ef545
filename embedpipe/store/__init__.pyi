from .feature_store import FeatureStore as FeatureStore
