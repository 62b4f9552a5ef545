from .choosing.next_items import NextItems as NextItems
from .findings import Findings as Findings
from .shifts.shift import Shift as Shift
