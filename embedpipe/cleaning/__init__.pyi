from .findings import Findings as Findings
