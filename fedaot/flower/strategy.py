"""What robust strategies have in common: a round around their rule."""

import abc
import logging
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from flwr.app import Array
from flwr.app import ArrayRecord
from flwr.app import ConfigRecord
from flwr.app import Message
from flwr.app import MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
import numpy as np

from fedaot import holdout as holdout_lib
from fedaot.flower import replies as replies_lib

# What PyTorch and Keras call the arrays that batch normalization counts.
BUFFERS = (
    'running_mean',
    'running_var',
    'num_batches_tracked',
    'moving_mean',
    'moving_variance',
)

_logger = logging.getLogger('flwr')


class RobustStrategy(FedAvg, abc.ABC):
  """`FedAvg` whose average withstands clients that send anything.

  A reply that is an error, malformed, undecodable or a node's second one is
  dropped, which the log and the metric `fedaot-num-dropped` tell. Clients may
  send arrays in another precision or memory order.

  Arrays that are not floats, and those named in `buffers`, are no part of the
  update: their new value is the median over clients, entry by entry.

  Attributes:
    node_ids: The nodes of the last round's usable replies, in the order of
      metrics that have an entry for each.
  """

  def __init__(
      self, *args: Any, buffers: Iterable[str] = BUFFERS, **kwargs: Any
  ):
    """Initializes a strategy.

    Args:
      *args: As of `flwr.serverapp.strategy.FedAvg`.
      buffers: Names, or last parts of dotted names, of float arrays that are
        counted rather than trained, such as statistics of batch normalization.
      **kwargs: As of `FedAvg`.
    """
    super().__init__(*args, **kwargs)
    self._buffers = frozenset(buffers)
    self._model: Dict[str, np.ndarray] = {}
    self.node_ids: List[int] = []

  # --- What a strategy says of its rule ---

  @abc.abstractmethod
  def _aggregate(
      self,
      model: List[np.ndarray],
      clients: Sequence[List[np.ndarray]],
      num_examples: Sequence[float],
  ) -> Tuple[List[np.ndarray], np.ndarray, Dict[str, Any]]:
    """The new weights, the clients' votes on buffers and measurements."""

  # --- A round ---

  def configure_train(
      self,
      server_round: int,
      arrays: ArrayRecord,
      config: ConfigRecord,
      grid: Grid,
  ) -> Iterable[Message]:
    """As of `FedAvg`; remembers the model that clients start from."""
    self._model = {n: replies_lib.read_array(a) for n, a in arrays.items()}
    return super().configure_train(server_round, arrays, config, grid)

  def aggregate_train(
      self, server_round: int, replies: Iterable[Message]
  ) -> Tuple[Optional[ArrayRecord], Optional[MetricRecord]]:
    """The robust aggregate and metrics; (None, metrics) of no usable reply."""
    if not self._model:
      raise RuntimeError(
          'aggregate_train needs the model that clients started from; call'
          ' configure_train first.'
      )
    usable, num_dropped = self._usable('aggregate_train', replies, self._model)
    self.node_ids = [reply.node_id for reply in usable]
    if not usable:
      return None, MetricRecord({'fedaot-num-dropped': num_dropped})
    places = self._weight_places()
    model = list(self._model.values())
    new, votes, measured = self._aggregate(
        [model[i] for i in places],
        [[reply.arrays[i] for i in places] for reply in usable],
        [reply.num_examples for reply in usable],
    )
    merged = dict(zip(places, new))
    arrays = ArrayRecord(
        {
            name: Array(
                merged[i]
                if i in merged
                else _median(like, [reply.arrays[i] for reply in usable], votes)
            )
            for i, (name, like) in enumerate(self._model.items())
        }
    )
    metrics = self._averaged(usable, self.train_metrics_aggr_fn)
    metrics['fedaot-num-dropped'] = num_dropped
    for name, value in _flat(measured).items():
      metrics[f'fedaot-{name.replace("_", "-")}'] = value
    return arrays, metrics

  def aggregate_evaluate(
      self, server_round: int, replies: Iterable[Message]
  ) -> Optional[MetricRecord]:
    """As of `FedAvg`, without the replies that are not usable."""
    usable, _ = self._usable('aggregate_evaluate', replies, {})
    if not usable:
      return None
    return self._averaged(usable, self.evaluate_metrics_aggr_fn)

  def initialize_parameters(self, *unused_args, **unused_kwargs):
    """Flower's workflows of the former API, among them SecAgg, begin here."""
    raise TypeError(
        f'{type(self).__name__} is for ServerApps that call strategy.start, not'
        ' for workflows such as SecAggPlusWorkflow: secure aggregation hides'
        ' the single updates, which a robust rule must see.'
    )

  # --- Its steps ---

  def _usable(self, what, messages, model):
    """Usable replies, a node's first alone, and how many others there are."""
    usable, seen, num_dropped = [], set(), 0
    for message in messages:
      node_id = message.metadata.src_node_id
      try:
        reply = replies_lib.read(message, self.weighted_by_key, model)
        if node_id in seen:
          raise ValueError('a second reply')
      except ValueError as error:
        num_dropped += 1
        _logger.warning(
            '\t> Dropped the reply of node %d: %s',
            node_id,
            ' '.join(str(error).split())[:200],
        )
      else:
        seen.add(node_id)
        usable.append(reply)
    if usable or num_dropped:  # As Flower: nothing of a round that is skipped.
      _logger.info(
          '%s: Received %d results and dropped %d',
          what,
          len(usable),
          num_dropped,
      )
    return usable, num_dropped

  def _averaged(self, usable, function) -> MetricRecord:
    contents = replies_lib.of_usual_metrics(usable)
    metrics = function(contents, self.weighted_by_key) if contents else None
    return MetricRecord() if metrics is None else metrics

  def _weight_places(self) -> List[int]:
    """Where among the model's arrays its weights are."""
    return [
        i
        for i, (name, array) in enumerate(self._model.items())
        if array.dtype.kind == 'f' and not self._is_buffer(name)
    ]

  def _is_buffer(self, name: str) -> bool:
    return bool(self._buffers & {name, name.replace('/', '.').split('.')[-1]})


def of_weights(holdout: Optional[holdout_lib.HoldOut]):
  """A hold-out of all the model's arrays as one of its weights alone."""
  if holdout is None:
    return None
  if not isinstance(holdout, holdout_lib.HoldOut):
    raise TypeError(
        'holdout must have num_examples, train and loss_and_gradient, see'
        f' fedaot.HoldOut; found {type(holdout).__name__}.'
    )
  return _OfWeights(holdout)


class _OfWeights:
  """See `of_weights`."""

  def __init__(self, holdout: holdout_lib.HoldOut):
    self._holdout = holdout
    self.num_examples = holdout.num_examples
    self._model: List[np.ndarray] = []
    self._places: List[int] = []

  def follow(self, model: Sequence[np.ndarray], places: List[int]) -> None:
    """Takes the arrays that are no weights from a model."""
    self._model, self._places = list(model), places

  def train(self, model, positions):
    """See `fedaot.HoldOut`."""
    trained = self._holdout.train(self._whole(model), positions)
    return [trained[i] for i in self._places]

  def loss_and_gradient(self, model, positions):
    """See `fedaot.HoldOut`."""
    loss, gradient = self._holdout.loss_and_gradient(
        self._whole(model), positions
    )
    return loss, [gradient[i] for i in self._places]

  def _whole(self, weights):
    whole = list(self._model)
    for place, array in zip(self._places, weights):
      whole[place] = array
    return whole


def _median(
    like: np.ndarray, arrays: Sequence[np.ndarray], votes: np.ndarray
) -> np.ndarray:
  """The median of each entry over clients, weighted by their votes."""
  pairs = [
      (array.reshape(-1), vote)
      for array, vote in zip(arrays, votes)
      if vote > 0 and np.all(np.isfinite(array))
  ]
  if not pairs:
    return like
  values = np.stack([array for array, _ in pairs])
  votes = np.array([vote for _, vote in pairs])
  order = np.argsort(values, axis=0)
  reached = np.cumsum(votes[order], axis=0) >= votes.sum() / 2
  middle = np.take_along_axis(order, reached.argmax(axis=0)[None], axis=0)
  median = np.take_along_axis(values, middle, axis=0)
  return median.reshape(like.shape).astype(like.dtype)


def _flat(measured: Dict[str, Any], prefix: str = '') -> Dict[str, Any]:
  """Measurements as values of a `MetricRecord`."""
  flat = {}
  for name, value in measured.items():
    if isinstance(value, dict):
      flat.update(_flat(value, f'{prefix}{name}-'))
    elif value is not None:
      value = np.asarray(value)
      value = value.astype(int) if value.dtype == bool else value
      flat[prefix + name] = value.tolist()
  return flat
