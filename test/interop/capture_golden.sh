#!/bin/bash
# Capture the golden messages again, with each Nameko: rpclib/test/golden/.  A private RabbitMQ is started and stopped.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."
# shellcheck source=test/interop/environment.sh
. test/interop/environment.sh

run=$(mktemp -d)
trap 'RUN_DIR=$run ./dev_run_backingsvcs.sh stop >/dev/null; rm -rf "$run"' EXIT
RUN_DIR=$run ./dev_run_backingsvcs.sh start rabbitmq
eval "$(RUN_DIR=$run ./dev_run_backingsvcs.sh env rabbitmq)"
for version in "${NAMEKO_VERSIONS[@]}"; do
    python=$(interop_python "$version")
    PYTHONWARNINGS=ignore "$python" test/interop/capture_golden.py "$AMQP_URI/" "rpclib/test/golden/nameko-$version"
done
