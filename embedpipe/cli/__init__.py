"""The ``embedpipe`` command."""

from embedpipe.cli import advising as advising  # registers its verbs
from embedpipe.cli import backbones as backbones  # registers its verb
from embedpipe.cli import doctor as doctor  # registers its verb
from embedpipe.cli import erasing as erasing  # registers its verbs
from embedpipe.cli import evaluating as evaluating  # registers its verb
from embedpipe.cli import finetuning as finetuning  # registers its verb
from embedpipe.cli import jobs as jobs  # registers its verb
from embedpipe.cli import learning as learning  # registers its verbs
from embedpipe.cli import ranking as ranking  # registers its verb
from embedpipe.cli.app import app, main
from embedpipe.cli.cleaning import cleaning as cleaning  # registers its verbs
from embedpipe.cli.cleaning import clustering as clustering  # registers its verb
from embedpipe.cli.cleaning import labelling as labelling  # registers its verb
from embedpipe.cli.searching import drawing as drawing  # registers its verbs
from embedpipe.cli.searching import indexing as indexing  # registers its verb
from embedpipe.cli.searching import search as search  # registers its verb
from embedpipe.cli.searching import viewing as viewing  # registers its verb
from embedpipe.cli.storing import importing as importing  # registers its verb
from embedpipe.cli.storing import reducing as reducing  # registers its verb
from embedpipe.cli.storing import sharing as sharing  # registers its verbs

__all__ = ["app", "main"]
