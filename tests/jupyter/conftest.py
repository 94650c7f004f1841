"""The profile of the property tests, as the engine's have it."""

import tests.engine.conftest  # noqa: F401  # loads it
