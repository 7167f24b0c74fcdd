#!/usr/bin/env bash
# Submit a run to Slurm: an array that explains it; when all its tasks have ended well, one job merges, verifies, reports,
# and compares with an older run. Run it again after a failure: finished shards stay. `batchcam submit --help` tells the
# options; these two scripts beside it are the jobs: explain.sbatch, finish.sbatch.
#
#   jobs/submit.sh --tasks 8 --at-once 4 --gpus model.pth photos/test runs/monday
#   jobs/submit.sh --against runs/monday --max-flips 2 model.pth photos/test runs/tuesday --shard-size 1000
#
# Partition, account and their like come from SBATCH_PARTITION, SBATCH_ACCOUNT, … for both jobs.
set -euo pipefail

exec batchcam submit --scripts "$(dirname "$(readlink -f "$0")")" "$@"
