from .findings import Findings as Findings
from .next_items import NextItems as NextItems
from .shift import Shift as Shift
