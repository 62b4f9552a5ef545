from .erasing.forgetting import Forgotten as Forgotten
from .feature_store import FeatureStore as FeatureStore
from .repairing.repair import RepairReport as RepairReport
from .repairing.repair import repair as repair
