"""Training of a network: images, augmentation, optimizer, training loop, several processes, and the page."""
