"""Asserts in `agents.py` tell what they compared."""

import pytest

pytest.register_assert_rewrite("tests.hostile.agents")
