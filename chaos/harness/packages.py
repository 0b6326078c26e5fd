"""Debian's packages that a script of ours needs: named, not found out by a traceback."""
import importlib.util
import sys

EXIT_MISSING = 2
PACKAGES = {"pika": "python3-pika", "psycopg2": "python3-psycopg2", "redis": "python3-redis"}  # by the module


def require(script, *modules):
    """All of them can be imported, or the script ends and says what to install."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        names = " ".join(PACKAGES[module] for module in missing)
        print(
            f"{script}: {sys.executable} has no {', '.join(missing)};"
            f" run: sudo apt-get install --no-install-recommends {names} (they are for Debian's /usr/bin/python3)",
            file=sys.stderr,
        )
        sys.exit(EXIT_MISSING)
