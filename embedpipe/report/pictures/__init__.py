"""PNG pictures: the map of a store, a confusion matrix, nearest neighbours."""
