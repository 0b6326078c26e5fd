"""A connection to PostgreSQL."""
import contextlib

import psycopg2


@contextlib.contextmanager
def database(uri):
    """A cursor; each of its statements is a transaction of its own."""
    connection = psycopg2.connect(uri)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()
