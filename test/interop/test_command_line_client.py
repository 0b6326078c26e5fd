"""Our command line client before Nameko's services."""
import json
import re
import subprocess

import pytest
from mixed import RPC_TOOL
from support.clock import ANSWER_S
from support.program import clean_environment
from support.shop import a_line, a_product, unique


@pytest.fixture(scope="module", params=["Python", "C"])
def shop(request, make_mixed):
    shop = make_mixed()
    shop.use("products", request.param)
    shop.use("orders", request.param)
    return shop


def result_of(answer):
    code, output, errors = answer
    assert code == 0, answer
    return json.loads(output)


def error_of(answer):
    code, output, errors = answer
    assert code == 1, answer
    return json.loads(output)


def test_results(shop):
    product = a_product(unique("tool"), title="Ü \u2708 \U0001f6a2")
    assert result_of(shop.rpc_tool("products", "create", [product])) is None
    assert result_of(shop.rpc_tool("products", "get", [product["id"]])) == product
    assert result_of(shop.rpc_tool("products", "get", [], {"product_id": product["id"]})) == product
    assert result_of(shop.rpc_tool("products", "exists", [product["id"]])) is True
    assert product in result_of(shop.rpc_tool("products", "list"))
    order = result_of(shop.rpc_tool("orders", "create_order", [[a_line(product["id"], "100000.99", 4)]]))
    assert order["order_details"][0]["price"] == "100000.99"
    shop.wait_stock(product["id"], 6)
    assert result_of(shop.rpc_tool("orders", "get_order", [], {"order_id": order["id"]})) == order


def test_errors(shop):
    error = error_of(shop.rpc_tool("products", "get", ["missing"]))
    assert error["exc_type"] == "NotFound"
    assert error["exc_path"] == "products.exceptions.NotFound"
    assert error["value"] == "Product ID missing does not exist"
    assert error["exc_args"] == ["Product ID missing does not exist"]
    assert error_of(shop.rpc_tool("orders", "nothing"))["exc_path"] == "nameko.exceptions.MethodNotFound"
    error = error_of(shop.rpc_tool("orders", "get_order"))
    assert error["value"] == "get_order() missing 1 required positional argument: 'order_id'"


def test_nobody_there(shop):
    code, output, errors = shop.rpc_tool("nobody", "method")
    assert code == 1 and re.search("unknown.?service", output + errors, re.IGNORECASE), (code, output, errors)


def test_wrong_usage(shop):
    for arguments in (["call", "products"], ["call", "products", "get", "{not json"], ["nonsense"], []):
        environment = {**clean_environment(), "AMQP_URI": shop.room.amqp_uri}
        result = subprocess.run([str(RPC_TOOL), *arguments], env=environment, capture_output=True, timeout=ANSWER_S)
        assert result.returncode == 2 and result.stderr, (arguments, result)
    result = subprocess.run([str(RPC_TOOL), "--help"], env=clean_environment(), capture_output=True, timeout=ANSWER_S)
    assert result.returncode == 0 and b"call" in result.stdout
