"""Attacks on federated learning: on the clients' data and on their updates."""
