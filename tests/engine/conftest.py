"""The profile of the property tests: the same examples everywhere, and few enough for every run.

``HYPOTHESIS_PROFILE=search`` looks further, with examples of its own each time.
"""

import os

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile(
    "every_run", derandomize=True, deadline=None, max_examples=60, stateful_step_count=40, suppress_health_check=_SLOW
)
settings.register_profile(
    "search", deadline=None, max_examples=1500, stateful_step_count=80, suppress_health_check=_SLOW, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "every_run"))
