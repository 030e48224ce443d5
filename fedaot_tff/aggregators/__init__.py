"""Robust aggregation rules, each as pure functions on tensors and a factory."""
