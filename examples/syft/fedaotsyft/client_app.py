"""A datasite: trains on its private images, or flips its update."""

import os
import pathlib

from fedaotsyft import task
from flwr.app import ArrayRecord
from flwr.app import Context
from flwr.app import Message
from flwr.app import MetricRecord
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
import numpy as np

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
  """Trains the model for an epoch."""
  del context
  # SyftBox names the folder of the private data.
  private = np.load(pathlib.Path(os.environ['DATA_DIR']) / 'train.npz')
  before = msg.content['arrays'].to_numpy_ndarrays()
  seed = msg.content['config']['server-round']
  after = task.train(before, private['x'], private['y'], seed)
  if private['attacks']:
    after = [2 * b - a for a, b in zip(after, before)]
  return Message(
      RecordDict({
          'arrays': ArrayRecord(after),
          'metrics': MetricRecord({'num-examples': len(private['y'])}),
      }),
      reply_to=msg,
  )
