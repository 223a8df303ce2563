import pytest

from tests.support.monitored import Story


@pytest.fixture
def story():
    return Story()
