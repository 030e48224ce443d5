"""Learning processes: client work, adversary, aggregator, finalizer."""
