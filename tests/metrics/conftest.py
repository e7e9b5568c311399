"""What takes long to start, once for all tests of metrics."""

from __future__ import annotations

import pytest
from metrics.classifier import save_classifier
from metrics.harness import measure_everything, retain_reference
from processes import in_two_processes


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> str:
    return save_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def of_two_processes(classifier):
    """What every metric and the suite say in each of two processes, for every way to deal the rows out."""
    return in_two_processes(measure_everything, classifier, retain_reference())
