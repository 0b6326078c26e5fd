class NotFound(Exception):
    """No such order.  Callers know it as orders.exceptions.NotFound."""
