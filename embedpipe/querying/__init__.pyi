from .index import SimilarityIndex as SimilarityIndex
from .options import SearchOptions as SearchOptions
