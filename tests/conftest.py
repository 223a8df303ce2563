from __future__ import annotations

import gc
import os
import re
from collections.abc import Generator

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("any machine", deadline=None)  # a slow one has done nothing wrong
settings.load_profile("any machine")

NETWORKS = (
    (re.compile("tests/(conformance|workers)/"), "clients"),
    (re.compile("tests/cluster/test_launcher"), "launcher"),  # its nodes are fakes
    (re.compile("tests/cluster/test_[a-m]"), "cluster, a to m"),
    (re.compile("tests/cluster/"), "cluster, n to z"),
)
"""By where tests are that start networks, the group they belong to; the first that fits.

No group takes much longer than another, so that all are over while there are single tests left to fill the end."""


class NetworksInGroups(LoadScopeScheduling):
    """Any worker takes any test, but each group of those that start networks stays on one.

    So there are never more networks at once than groups, however many workers there are. Groups are the largest
    units and so the first to be handed out, each to a worker of its own.

    Not `--dist loadgroup`: that writes the group into `_nodeid`, which pytest 9.2 no longer reads.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next((group for where, group in NETWORKS if where.match(nodeid)), nodeid)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Return one worker more than there are processors: those with networks often wait."""
    return (yield) + ("PYTEST_XDIST_AUTO_NUM_WORKERS" not in os.environ)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> NetworksInGroups:
    return NetworksInGroups(config, log)


def pytest_collection_finish() -> None:
    """Keep collections off what stays to the end anyway: a test that asks for one needn't wait for all modules."""
    gc.collect()
    gc.freeze()
