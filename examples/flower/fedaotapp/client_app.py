"""A client: trains on its images, or attacks."""

from fedaotapp import task
from flwr.app import ArrayRecord
from flwr.app import Context
from flwr.app import Message
from flwr.app import MetricRecord
from flwr.app import RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
  """Trains the model for an epoch."""
  config, node = context.run_config, context.node_config
  partition, num_partitions = node['partition-id'], node['num-partitions']
  x, y = task.load_client(partition, num_partitions, config['seed'])
  attacks = partition < int(config['byzantine-fraction'] * num_partitions)
  attack = config['attack'] if attacks else 'none'
  if attack == 'label_flip':
    y = 9 - y

  net = task.Net()
  before = msg.content['arrays'].to_torch_state_dict()
  net.load_state_dict(before)
  seed = 1000 * msg.content['config']['server-round'] + partition
  loss = task.train(net, x, y, seed)
  after = net.state_dict()
  if attack == 'sign_flip':
    after = {name: 2 * before[name] - after[name] for name in after}

  num_examples = 0 if attack == 'absent' else len(y)  # No say in a mean.
  metrics = {'num-examples': num_examples, 'train-loss': loss}
  return Message(
      RecordDict({
          'arrays': ArrayRecord(after), 'metrics': MetricRecord(metrics)
      }),
      reply_to=msg,
  )
