from .doctor import Diagnosis as Diagnosis
from .estimate import TimeEstimate as TimeEstimate
from .findings import Finding as Finding
