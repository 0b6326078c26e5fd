#!/usr/bin/python3
"""Fills a shop's catalogue by HTTP: the load test of the Python original was reported at 600 and at 2,300 products.

    loadtest/taurus/preload.py http://127.0.0.1:8000 600

makes products fleet-000001 to fleet-000600; those that are there already are left as they are.  --delete removes them.
Exit codes: 0 all are there, 1 the shop answered otherwise, 2 wrong usage.
"""
import argparse
import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

CONNECTIONS = 4
TIMEOUT_S = 20
COUNT_MAX = 1_000_000


def product(number):
    return {
        "id": f"fleet-{number:06d}",
        "title": f"Airship {number} of the fleet",
        "passenger_capacity": 101,
        "maximum_speed": 5,
        "in_stock": 1000,
    }


class Shop:
    """One connection."""

    def __init__(self, url):
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.netloc, timeout=TIMEOUT_S)
        self.path = parts.path.rstrip("/")

    def ask(self, method, path, body=None, expected=(200,)):
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.connection.request(method, self.path + path, None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read().decode(errors="replace")
        if answer.status not in expected:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:200]}")
        return answer.status

    def make(self, numbers):
        for number in numbers:
            one = product(number)
            if self.ask("GET", f"/products/{one['id']}", expected=(200, 404)) == 404:
                self.ask("POST", "/products", one)

    def delete(self, numbers):
        for number in numbers:
            self.ask("DELETE", f"/products/{product(number)['id']}", expected=(204,))


def main():
    parser = argparse.ArgumentParser(description="Fills a shop's catalogue by HTTP.")
    parser.add_argument("url", metavar="URL")
    parser.add_argument("count", type=int, metavar="COUNT")
    parser.add_argument("--delete", action="store_true", help="remove them")
    options = parser.parse_args()
    if urlsplit(options.url).scheme not in ("http", "https") or not 1 <= options.count <= COUNT_MAX:
        parser.error(f"an http:// URL, and 1 to {COUNT_MAX:,} products")

    def part(first):
        shop = Shop(options.url)
        numbers = range(first, options.count + 1, CONNECTIONS)
        return shop.delete(numbers) if options.delete else shop.make(numbers)

    try:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(part, range(1, CONNECTIONS + 1)))
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        print(f"preload: {options.url}: {error}", file=sys.stderr)
        return 1
    print(f"{options.count} products {'deleted' if options.delete else 'are there'}: fleet-000001 to {product(options.count)['id']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
