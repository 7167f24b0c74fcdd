#!/bin/bash
# The GPU's tests and the benchmark on it, in at most 8 minutes: `benchmarks/gpu.sh OUT` leaves OUT/gpu.json, all that was
# found, and OUT/row.md, a row for the table of GPUs in docs/speed.md. `benchmarks/gpu.sh OUT cpu` tries the script itself
# on a few images. PYTHON says which interpreter has batchcam's packages.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${1:?where to write}") device=${2:-cuda} python=${PYTHON:-python3}
export PYTHONPATH=$PWD
mkdir -p "$out"
images=16384
[ "$device" != cpu ] || images=16

# what fails here is in the JSON, and ends the script in the end
timeout 100 "$python" -m pytest -q -m gpu -p no:cacheprovider --junitxml "$out/tests.xml" \
  tests/maps tests/data/test_preprocessing.py || true
timeout 340 "$python" -m benchmarks.speed --out "$out" --device "$device" --images "$images" --rounds 1 --jobs 1 \
  --only "batchcam explain" --only "plain loop" --only "stage: " || true
exec "$python" -m benchmarks.gpu "$out"
