"""Label swapping whose updates are scaled up.

The attackers train on swapped labels, see `label_swap.LabelSwap`, and multiply
the update that comes of it by a factor, see `scaling.Scaling`. With the default
factor of 10, attackers that are a tenth of the clients already outweigh the
others in a mean.

Knowledge: the attackers' own data and update. Sources: those of the two parts.
"""

from typing import Optional

from fedaot_tff.attacks import label_swap
from fedaot_tff.attacks import scaling


def data_poisoning(
    *, first: Optional[int] = None, second: Optional[int] = None
) -> label_swap.LabelSwap:
  """The part on the data; arguments and errors are those of `LabelSwap`."""
  return label_swap.LabelSwap(first=first, second=second)


def update_poisoning(*, factor: float = 10.0) -> scaling.Scaling:
  """The part on the updates.

  Args:
    factor: What the updates are multiplied by.

  Returns:
    The `Scaling`, with the errors of its `factor`.
  """
  return scaling.Scaling(factor=factor)
