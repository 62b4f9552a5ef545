from .app import create_app as create_app
from .options import ServeOptions as ServeOptions
from .options import ViewOptions as ViewOptions
from .run import serve as serve
from .run import view as view
