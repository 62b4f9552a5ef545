from .result import Clusters as Clusters
