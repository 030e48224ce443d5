"""Tests for the metrics of weights against the ground truth."""

import numpy as np
import pytest

from fedaot_tff.simulation import metrics


def test_attacker_weight():
  weight = metrics.attacker_weight(
      np.array([0.5, 0.25, 0.25], np.float32), [True, False, True]
  )
  assert weight == 0.75
  assert type(weight) is float
  assert metrics.attacker_weight([0.5, 0.5], [False, False]) == 0.0
  assert metrics.attacker_weight([], np.zeros(0, bool)) == 0.0


@pytest.mark.parametrize(
    'weights, is_byzantine, expected',
    [
        ([0.1, 0.9], [True, False], 1.0),
        ([0.9, 0.1], [True, False], 0.0),
        ([0.5, 0.5], [True, False], 0.5),
        # Of six pairs four are in order and one is a tie.
        ([0.2, 0.5, 0.1, 0.2, 0.6], [True, True, False, False, False], 2.5 / 6),
        ([0.0, 0.0, 0.0, 1.0], [True, False, True, False], 0.75),
        # Undefined.
        ([0.5, 0.5], [False, False], None),
        ([0.5, 0.5], [True, True], None),
        ([], np.zeros(0, bool), None),
        ([np.nan, 0.5], [True, False], None),
    ],
)
def test_detection_auroc(weights, is_byzantine, expected):
  auroc = metrics.detection_auroc(weights, is_byzantine)
  assert auroc == pytest.approx(expected)
  assert type(auroc) is type(expected)


def test_detection_auroc_is_the_share_of_pairs():
  rng = np.random.default_rng(0)
  for _ in range(20):
    weights = rng.integers(0, 6, 15) / 10
    is_byzantine = rng.random(15) < 0.4
    is_byzantine[:2] = True, False
    pairs = [
        (h > a) + 0.5 * (h == a)
        for h in weights[~is_byzantine]
        for a in weights[is_byzantine]
    ]
    assert metrics.detection_auroc(weights, is_byzantine) == pytest.approx(
        np.mean(pairs)
    )


@pytest.mark.parametrize(
    'metric', [metrics.attacker_weight, metrics.detection_auroc]
)
def test_rejects_other_arguments(metric):
  with pytest.raises(ValueError, match=r'found shapes \(2,\) and \(1,\)'):
    metric([0.5, 0.5], [True])
  with pytest.raises(ValueError, match='must be vectors'):
    metric([[0.5, 0.5]], [[True, False]])
  with pytest.raises(TypeError, match='must be boolean; found int64'):
    metric([0.5, 0.5], [0, 1])
