"""Colour images of 10 classes on simulated clients: CIFAR-10.

The 50,000 training images, 32 x 32 pixels, are spread over the clients; the
stratified hold-out comes out of the 10,000 test images, and the rest of those
is the test set. TensorFlow Datasets prepares them in `data_dir` or a folder of
its own, after a download if that was not done before. Models, which standardise
and augment the images: 'resnet20' (269,722 parameters), 'resnet18'
(11,173,962), 'cnn' (79,530) and 'mlp' (308,310).
"""

from tasks import data_files
from tasks import prepared_data
from tasks import spec

_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'


def _place(options):
  return 'cifar10', data_files.find_folder(options['data_dir']), _URL


def _read(options, seeds):
  return spec.split_given_sets(
      *prepared_data.read(*_place(options)),
      holdout_size=options['holdout_size'],
      seed=next(seeds),
  )


TASK = spec.TaskSpec(
    summary='CIFAR-10 on simulated clients, from TensorFlow Datasets.',
    defaults=dict(
        seed=0,
        model='resnet20',
        num_clients=100,
        **spec.SIMULATED_CLIENTS,
        holdout_size=100,
        batch_size=32,
        client_epochs=1,
        client_learning_rate=0.1,
        rounds=200,
        cohort_size=20,
        data_dir=None,
    ),
    models={'resnet20': {}, 'resnet18': {}, 'cnn': {}, 'mlp': {}},
    model_defaults={m: {'client_learning_rate': 0.03} for m in ('cnn', 'mlp')},
    num_classes=10,
    read=_read,
    find=lambda options: prepared_data.check(*_place(options)),
    max_examples=50000,
    max_pool=10000,
    # Of the training images, in [0, 1].
    pixel_moments=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
)
