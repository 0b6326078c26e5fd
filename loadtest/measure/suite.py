"""A file of tests as a suite of .ci/run: it ends with "N passed, N failed"."""
import pytest


class _Count:
    passed = failed = 0

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed += 1
        elif report.when == "call":
            self.passed += report.passed
            self.failed += report.skipped


def run(path, arguments):
    """Returns the exit code."""
    count = _Count()
    code = pytest.main(["-q", "-p", "no:cacheprovider", path, *arguments], plugins=[count])
    print(f"{count.passed} passed, {count.failed or int(code != 0)} failed")
    return int(code != 0)
