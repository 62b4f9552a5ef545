"""A store as a page sees it: rows in memory, selections, search, the map, predictions and labels."""
