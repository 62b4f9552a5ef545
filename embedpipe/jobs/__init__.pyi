from .result import JobResult as JobResult
from .result import StepResult as StepResult
from .running import run_job as run_job
