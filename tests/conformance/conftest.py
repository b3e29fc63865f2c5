"""The fixture that every test of this folder takes."""

from __future__ import annotations

import pytest

from tests.conformance.implementations import IMPLEMENTATIONS, Ability, Implementation


@pytest.fixture(params=list(IMPLEMENTATIONS))
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """Each implementation in turn, if it has what the test is about."""
    implementation = IMPLEMENTATIONS[request.param]
    for needed in request.node.iter_markers("needs"):
        for ability in needed.args:
            if Ability(ability) in implementation.lacks:
                pytest.skip(f"{implementation} has no {ability}")
    return implementation
