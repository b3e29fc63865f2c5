"""The fixture that every test of this folder takes."""

from __future__ import annotations

import pytest

from tests.conformance.implementations import IMPLEMENTATIONS, Implementation


@pytest.fixture(params=list(IMPLEMENTATIONS))
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """Each implementation in turn."""
    return IMPLEMENTATIONS[request.param]
