"""What a script of ours needs beside Python, by Debian's packages: what is missing is named in one line, not found out by a traceback."""
import importlib.util
import os
import shutil
import sys

EXIT_MISSING = 3  # as of dev/say.sh
DEBIANS_PYTHON = "/usr/bin/python3"  # the one that Debian's packages are for


def require(script, *modules, commands=None):
    """All modules can be imported and all commands (each with the package that holds it) be run, or the script ends here."""
    modules = [module for module in modules if importlib.util.find_spec(module) is None]
    packages = {f"python3-{module}" for module in modules}
    packages |= {package for command, package in (commands or {}).items() if shutil.which(command) is None}
    if not packages:
        return
    line = f"{script}: not installed; run: sudo apt-get install --no-install-recommends {' '.join(sorted(packages))}"
    if modules and os.path.realpath(sys.executable) != os.path.realpath(DEBIANS_PYTHON):
        line += f" (and use {DEBIANS_PYTHON}: this is {sys.executable})"
    print(line, file=sys.stderr)
    sys.exit(EXIT_MISSING)
