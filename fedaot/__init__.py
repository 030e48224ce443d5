"""FedAOT and other Byzantine-robust aggregation rules, on NumPy alone."""

from fedaot import holdouts
from fedaot import rules
from fedaot.aggregator import FedAOTAggregator
from fedaot.aggregator import Round
from fedaot.config import FedAOTConfig
from fedaot.equations import AGREEMENT_STATISTICS
from fedaot.equations import HOLDOUT_STATISTICS
from fedaot.holdout import HoldOut

__version__ = '0.2.0'

__all__ = (
    'AGREEMENT_STATISTICS',
    'FedAOTAggregator',
    'FedAOTConfig',
    'HOLDOUT_STATISTICS',
    'HoldOut',
    'Round',
    'holdouts',
    'rules',
)
