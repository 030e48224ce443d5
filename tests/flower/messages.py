"""Messages as a ServerApp meets them, and a cohort of clients that train."""

from flwr.app import Array
from flwr.app import ArrayRecord
from flwr.app import ConfigRecord
from flwr.app import Message
from flwr.app import MetricRecord
from flwr.app import RecordDict
import numpy as np

try:
  from flwr.app import Error  # noqa: F401
except ImportError:
  pass

try:  # Whose messages these are, which newer releases ask for.
  from flwr.supercore.task_identity import TaskIdentity

  TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
except ImportError:
  pass


class Nodes:
  """As much of a grid as strategies ask when they sample."""

  def __init__(self, num_nodes):
    self._num_nodes = num_nodes

  def get_node_ids(self):
    return list(range(1, self._num_nodes + 1))


def record(arrays):
  return ArrayRecord({n: Array(np.asarray(a)) for n, a in arrays.items()})


def instruction(node_id):
  return Message(RecordDict(), dst_node_id=node_id, message_type='train')


def answer(node_id, content):
  return Message(content, reply_to=instruction(node_id))


def reply(node_id, arrays, **metrics):
  """A client's reply; metric names with dashes in place of underscores."""
  metrics = {'num_examples': 10, **metrics}
  return answer(
      node_id,
      RecordDict(
          {
              'arrays': (
                  arrays if isinstance(arrays, ArrayRecord) else record(arrays)
              ),
              'metrics': MetricRecord(
                  {name.replace('_', '-'): v for name, v in metrics.items()}
              ),
          }
      ),
  )


def model(rng):
  return {
      'conv.weight': rng.standard_normal((4, 3, 2)).astype(np.float32),
      'bn.running_var': np.ones(3, np.float32),
      'bn.num_batches_tracked': np.asarray(7),
      'head': rng.standard_normal(5).astype(np.float16),
  }


WEIGHTS = ('conv.weight', 'head')


def cohort(rng, arrays, num_clients=10, num_flipped=3, **metrics):
  """Replies of clients whose updates agree; the first ones flip theirs."""
  common = {n: rng.standard_normal(np.shape(a)) for n, a in arrays.items()}
  replies = []
  for i in range(num_clients):
    flipped, trained = i < num_flipped, dict(arrays)
    for name in WEIGHTS:
      update = common[name] + 0.3 * rng.standard_normal(arrays[name].shape)
      trained[name] = arrays[name] + (-1 if flipped else 1) * update
      trained[name] = trained[name].astype(arrays[name].dtype)
    trained['bn.num_batches_tracked'] = np.asarray(10**9 if flipped else 9)
    trained['bn.running_var'] = np.full(3, np.inf if flipped else 2 + i / 100)
    replies.append(reply(i + 1, trained, **metrics))
  return replies, common


def train(strategy, arrays, replies, round_num=1, num_nodes=10):
  """A round of a strategy; arrays by name or None, and metrics."""
  strategy.configure_train(
      round_num, record(arrays), ConfigRecord(), Nodes(num_nodes)
  )
  new, metrics = strategy.aggregate_train(round_num, replies)
  return new and {n: a.numpy() for n, a in new.items()}, metrics


def weights(content):
  """A reply's or a model's weights, as lists of arrays."""
  if isinstance(content, Message):
    content = content.content['arrays']
    return [content[name].numpy() for name in WEIGHTS]
  return [content[name] for name in WEIGHTS]
