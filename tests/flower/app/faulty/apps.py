"""A server with FedAOT, and clients that do what their node is told to."""

import json
import time

from flwr.app import Array
from flwr.app import ArrayRecord
from flwr.app import Message
from flwr.app import MetricRecord
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
import numpy as np

from fedaot.flower import FedAOT

TARGET = np.linspace(-1, 1, 40).astype(np.float32)
DOES = ('garbage', 'late', 'honest', 'honest')

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
  """Moves half of the way to the target."""
  does = DOES[context.node_config['partition-id']]
  before = message.content['arrays']['w'].numpy()
  array = Array(before + 0.5 * (TARGET - before))
  if does == 'garbage':
    array.data = b'\x93NUMPY' + array.data[50:]
  if does == 'late':
    time.sleep(context.run_config['reply-timeout'] + 5)
  content = RecordDict(
      {
          'arrays': ArrayRecord({'w': array}),
          'metrics': MetricRecord({'num-examples': 10}),
      }
  )
  return Message(content, reply_to=message)


@server.main()
def main(grid, context):
  """Writes what happened after every round."""
  config = context.run_config
  while len(list(grid.get_node_ids())) < config['num-clients']:
    time.sleep(0.5)
  strategy = FedAOT(
      fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1
  )
  found = {}

  def evaluate(server_round, arrays):
    distance = float(np.abs(arrays['w'].numpy() - TARGET).max())
    found[server_round] = [distance, len(strategy.node_ids)]
    with open(config['result'] + '.rounds', 'w', encoding='utf-8') as file:
      file.write(str(server_round))

  strategy.start(
      grid,
      ArrayRecord({'w': Array(np.zeros(40, np.float32))}),
      num_rounds=config['num-server-rounds'],
      timeout=config['reply-timeout'],
      evaluate_fn=evaluate,
  )
  with open(config['result'], 'w', encoding='utf-8') as file:
    json.dump(found, file)
