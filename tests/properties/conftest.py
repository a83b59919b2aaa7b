"""The same few examples each time; OVSEG_EXAMPLES=2000 draws so many new ones of each property."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

ASKED = os.environ.get("OVSEG_EXAMPLES")
settings.register_profile(
    "ovseg",
    max_examples=int(ASKED or 25),
    derandomize=not ASKED,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ovseg")
