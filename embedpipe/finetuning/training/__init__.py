"""Training of a network: images and texts, optimizer, training loop, several processes, and the page."""
