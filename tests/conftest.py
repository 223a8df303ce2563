from __future__ import annotations

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("any machine", deadline=None)  # a slow one has done nothing wrong
settings.load_profile("any machine")

NETWORKS = ("tests/cluster/", "tests/conformance/", "tests/workers/")


class OneNetworkAtATime(LoadScopeScheduling):
    """Any worker takes any test, but those that start networks stay together: two at once would slow each other.

    Not `--dist loadgroup`: that writes the group into `_nodeid`, which pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return NETWORKS[0] if nodeid.startswith(NETWORKS) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneNetworkAtATime:
    return OneNetworkAtATime(config, log)
