"""Running computations in this process, on its accelerators."""
