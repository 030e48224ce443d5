"""What FedAOT asks of the server's clean hold-out examples."""

from typing import List, Protocol, runtime_checkable, Sequence, Tuple

import numpy as np


@runtime_checkable
class HoldOut(Protocol):
  """About 100 clean examples at the server, with the model that they judge.

  A class with these members in any framework will do. Arrays are those of the
  model, in its order; positions are indices of hold-out examples.

  Attributes:
    num_examples: The number of hold-out examples.
  """

  num_examples: int

  def train(
      self, model: Sequence[np.ndarray], positions: np.ndarray
  ) -> List[np.ndarray]:
    """The model after a typical client's local training on the examples.

    The norm of an honest update is bounded by what this gives, so learning
    rate, batch size and number of steps should be a typical client's.
    """

  def loss_and_gradient(
      self, model: Sequence[np.ndarray], positions: np.ndarray
  ) -> Tuple[float, List[np.ndarray]]:
    """Mean loss of the model on the examples and its gradient."""
