"""Tests for estimates."""

import math

import pandas as pd
import pytest

from binaries.reporting import estimates


def test_estimate():
  assert estimates.estimate(pd.Series([math.nan])) is None
  assert estimates.estimate(pd.Series([2.0, math.nan])) == (2.0, None, None, 1)
  found = estimates.estimate(pd.Series([1.0, 2.0, 3.0]))
  assert found.mean == 2 and found.deviation == 1 and found.seeds == 3
  # Student's t with 2 degrees of freedom has 4.3027 at 97.5 %.
  assert found.confidence == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_variants_of_fedaot_and_the_oracle_are_no_baselines():
  names = ['mean', 'oracle', 'nnm+fedaot:x=1', 'fedaot_frozen', 'nnm+krum:a=1']
  assert estimates.baselines(names) == ['mean', 'nnm+krum:a=1']
