from .findings import Findings as Findings
from .shift import Shift as Shift
