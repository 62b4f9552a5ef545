from .app import create_app as create_app
from .options import ViewOptions as ViewOptions
from .run import view as view
