from .options import PushOptions as PushOptions
from .pulling import pull as pull
from .pushing import PushReport as PushReport
from .pushing import push as push
