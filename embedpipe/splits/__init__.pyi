from .inner import Folds as Folds
from .inner import Split as Split
from .make import make_splits as make_splits
from .splits import Resample as Resample
from .splits import Splits as Splits
from .splits import load_splits as load_splits
