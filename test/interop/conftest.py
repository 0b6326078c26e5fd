"""The shop with each of its programs in C or in Python, on one broker and the same data.

Servers, rooms and the watching of programs are the black-box tests' own (test/conftest.py, test/support).
"""
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE / "shop")]

from mixed import MixedShop  # noqa: E402


@pytest.fixture(scope="module")
def make_mixed(servers, directory):
    """Shops in rooms of their own, stopped behind the module's last test."""
    made = []

    def make(**options):
        made.append(MixedShop(servers, directory, **options))
        return made[-1]

    try:
        yield make
    finally:
        failures = []
        for shop in made:
            try:
                shop.close()
            except AssertionError as error:
                failures.append(str(error))
        assert not failures, "\n".join(failures)


@pytest.fixture(scope="module")
def c_services(make_mixed):
    """products and orders in C."""
    shop = make_mixed()
    shop.use("products", "C")
    shop.use("orders", "C")
    return shop
