class NotFound(Exception):
    """No such product.  Callers know it as products.exceptions.NotFound."""
