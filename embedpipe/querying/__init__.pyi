from .index import SimilarityIndex as SimilarityIndex
from .neighbours import Neighbours as Neighbours
from .options import SearchOptions as SearchOptions
