"""Keeps tests off the network and off the user's files, and skips what this machine cannot run."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest
import torch

from ovseg.d2._lite import logger as lite_logger
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.utils import setup_logger
from tests.helpers import has_real_detectron2

_LOCAL = ("127.", "localhost", "::1", "0.0.0.0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs = {
        "gpu": (torch.cuda.is_available(), "needs a CUDA device"),
        "real_d2": (has_real_detectron2(), "needs the real Detectron2"),
    }
    for item in items:
        for marker, (available, reason) in needs.items():
            if marker in item.keywords and not available:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # Tests are small; threads would only fight over the cores.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_handlers_left() -> Iterator[None]:
    """Takes off what a command that ran in the test made of the loggers: its screen is gone."""
    yield
    for name in ("ovseg", "fvcore", "detectron2"):
        logger = logging.getLogger(name)
        logger.propagate = True
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    forget = getattr(setup_logger, "cache_clear", None) or lite_logger._handled.clear
    forget()


@pytest.fixture
def restored_catalogues() -> Iterator[None]:
    """Leaves the catalogues as they were, so that tests do not see each other's datasets."""
    before = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    yield
    for catalogue, data in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        catalogue.data.clear()
        catalogue.data.update(data)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if isinstance(address, tuple) and not str(host).startswith(_LOCAL):
            raise OSError(f"a test tried to connect to {host}; tests run without a network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("DETECTRON2_DATASETS", str(tmp_path_factory.mktemp("datasets")))
        yield
