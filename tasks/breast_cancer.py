"""The breast cancer table of scikit-learn: 569 tumours, with no download.

Thirty features, computed from an image of cells, tell a malignant tumour (class
0, 212 of them) from a benign one (class 1, 357) (Wolberg et al., "Breast Cancer
Wisconsin (Diagnostic)", UCI Machine Learning Repository, 1995, licence CC BY
4.0). They come with the scikit-learn package. Of the tumours 119 are the test
set, 50 by default the server's hold-out, and the rest is spread over the
clients; test set and hold-out are stratified. Each feature has mean 0 and
variance 1 over the data of all clients together. With the default options,
federated averaging without attackers classifies about 97 % of the test set
correctly with a multilayer perceptron of 32 hidden units (1,058 parameters).
"""

import dataclasses

import numpy as np

from tasks import spec


def _read(options, seeds):
  from sklearn import datasets  # pylint: disable=g-import-not-at-top

  features, labels = datasets.load_breast_cancer(return_X_y=True)
  sets = spec.split_one_set(
      features,
      labels.astype(np.int64),
      test_size=119,
      holdout_size=options['holdout_size'],
      seed=next(seeds),
  )
  # Hold-out and test set have no part in the moments.
  deviation = features[sets.train].std(axis=0)
  # A feature that is constant there is shifted only.
  scale = np.where(deviation > 0, deviation, 1.0)
  standardized = (features - features[sets.train].mean(axis=0)) / scale
  return dataclasses.replace(sets, x=standardized.astype(np.float32))


TASK = spec.TaskSpec(
    summary='569 tumours with 30 features from scikit-learn; no download.',
    defaults=dict(
        seed=0,
        num_clients=20,
        **spec.SIMULATED_CLIENTS,
        holdout_size=50,
        batch_size=10,
        client_epochs=2,
        client_learning_rate=0.1,
        rounds=20,
        cohort_size=10,
    ),
    models={'mlp': {'hidden_sizes': (32,)}},
    num_classes=2,
    read=_read,
    min_client_examples=5,
)
