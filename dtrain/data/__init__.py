"""From bytes to Arrow to the memory that tensors look at."""
