"""The tests; `make test` runs all that this machine can run."""

import pytest

# A failed assert there is to show what it compared, as one in a test file does.
pytest.register_assert_rewrite("tests.integration", "tests.unit.packed_support")
