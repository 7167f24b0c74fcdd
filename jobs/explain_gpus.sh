#!/usr/bin/env bash
# Explain a dataset with several GPUs, one worker each. Run it again after any interruption.
#
#   jobs/explain_gpus.sh 4 model.pth photos/test runs/monday [option of `batchcam explain`]...
#   salloc --nodes=2 --ntasks-per-node=4 --gpus-per-task=1 jobs/explain_gpus.sh 8 model.pth photos/test runs/monday
#
# On one machine it starts the workers itself. In a Slurm allocation, of one machine or more, it leaves that to srun.
# (`torchrun --standalone --nproc-per-node=4 --no-python batchcam explain …` gives each worker its share and its GPU
# too, but takes the other workers down as soon as one ends with findings or stops early, and then ends with 1 itself.)
#
# Exit codes are batchcam's: the worst of the workers' (failed, stopped early, findings, done); srun's, the highest.
set -euo pipefail

exec batchcam explain-gpus "$@"
