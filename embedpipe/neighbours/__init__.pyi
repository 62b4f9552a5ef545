from .approximate import Cells as Cells
from .approximate import make_cells as make_cells
from .approximate import near_rows as near_rows
from .exact import nearest_rows as nearest_rows
from .exact import normalised as normalised
from .flat_file import read_flat as read_flat
from .flat_file import write_flat as write_flat
from .threads import faiss_alone as faiss_alone
