from .filters import rows_where as rows_where
from .how import How as How
from .index import SimilarityIndex as SimilarityIndex
from .neighbours import Neighbours as Neighbours
from .options import SearchOptions as SearchOptions
