"""FedAOT and other Byzantine-robust aggregation rules, on NumPy alone."""

__version__ = '0.2.0'
