from __future__ import annotations

import gc

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("any machine", deadline=None)  # a slow one has done nothing wrong
settings.load_profile("any machine")

NETWORKS = {"tests/cluster/": "cluster", "tests/conformance/": "clients", "tests/workers/": "clients"}
"""By folder of tests that start networks, the group they belong to."""


class TwoNetworksAtMost(LoadScopeScheduling):
    """Any worker takes any test, but each group of those that start networks stays on one: more would be slower.

    Those of the clients mostly compute, those of the cluster mostly wait: two get along. Groups are the largest
    units and so the first to be handed out, each to a worker of its own.

    Not `--dist loadgroup`: that writes the group into `_nodeid`, which pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((group for folder, group in NETWORKS.items() if nodeid.startswith(folder)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> TwoNetworksAtMost:
    return TwoNetworksAtMost(config, log)


def pytest_collection_finish() -> None:
    """Keep collections off what stays to the end anyway: a test that asks for one needn't wait for all modules."""
    gc.collect()
    gc.freeze()
