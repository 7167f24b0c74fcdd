#!/usr/bin/env bash
# Explain a dataset and verify the record. Run it again after any interruption.
#
#   jobs/explain_and_verify.sh model.pth photos/test runs/monday [more options of `batchcam explain`]
#
# Exit codes are batchcam's: 0 done, 1 failed, 2 usage, 3 done with findings, 75 stopped early.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 CKPT DATA RUN [option]..." >&2
    exit 2
fi
checkpoint=$1 data=$2 run=$3
shift 3

code=0
batchcam explain "$checkpoint" "$data" --out "$run" "$@" || code=$?
# with findings (3) the record is complete, and worth verifying
if [ "$code" -ne 0 ] && [ "$code" -ne 3 ]; then
    exit "$code"
fi
batchcam verify "$run"
exit "$code"
