#!/usr/bin/env bash
# Retrain and decide: train, evaluate, explain, verify, compare with the promoted version, then promote or refuse.
# Run it again after any interruption. `batchcam retrain --help` tells the rest; `batchcam promote` is for a checkpoint of
# your own training code.
#
#   jobs/retrain.sh photos/train photos/test models/first --weights DEFAULT
#   jobs/retrain.sh --max-flips 5 --min-cam-similarity 0.5 photos/train photos/test models/second --epochs 40
#
#   models/second/model.pth    the checkpoint (and model.last.pth, to go on from)
#   models/second/run/         its explanation of TEST
#   models/second/compare/     what moved since the version that was promoted then; in words: compare.txt beside it
#   models/second/noise/1/     with --seeds: the recipe again from another seed, for limits that are auto
#   models/promoted            -> first or second; one link, so that a checkpoint and its run are always of one version
#
# To adapt it, do before the last line what training needs; options of the steps come from variables
# (BATCHCAM_DEVICE=cpu) or a file (BATCHCAM_CONFIG).
#
# Exit codes: 0 promoted; 1 failed; 2 usage; 3 refused, or promoted although some images could not be read: the last
# line says which; 75 stopped early, or another one is at work. Without promotion models/promoted stays as it was.
set -euo pipefail

exec batchcam retrain "$@"
