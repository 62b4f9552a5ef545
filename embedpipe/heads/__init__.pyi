from .head import Head as Head
from .head import load_head as load_head
from .mistakes import Mistakes as Mistakes
from .options import FitOptions as FitOptions
from .registry import load_estimator as load_estimator
from .scoring import FitReport as FitReport
