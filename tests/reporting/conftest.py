import pytest
from tests.support.report_sample import items

from decaylab import reporting


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """One report with every kind of chart, claim and ending."""
    return reporting.build(items(unfinished=True), tmp_path_factory.mktemp("report"))
