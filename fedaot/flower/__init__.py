"""FedAOT, and every rule of `fedaot.rules`, as strategies of Flower.

For Flower's message API, `flwr.serverapp`, of flwr 1.21 and later. In place of
`flwr.serverapp.strategy.FedAvg`:

```python
from fedaot.flower import FedAOT

strategy = FedAOT(fraction_train=0.5)
```
"""

try:
  import flwr.serverapp.strategy  # pylint: disable=unused-import
except ImportError as error:
  raise ImportError(
      'fedaot.flower needs flwr 1.21 or later; install it with:'
      " pip install 'flwr>=1.21'"
  ) from error

# pylint: disable=wrong-import-position
from fedaot.flower.fedaot_strategy import FedAOT
from fedaot.flower.rule_strategy import Robust

__all__ = ('FedAOT', 'Robust')
