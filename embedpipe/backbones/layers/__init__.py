"""The layers of a network: capturing their outputs, pooling them into vectors, and listing the stages."""
