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

if [ $# -lt 4 ] || [[ ! $1 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 GPUS CKPT DATA RUN [option]..." >&2
    exit 2
fi
gpus=$1 checkpoint=$2 data=$3 run=$4
shift 4

workers=() stopped=''

# SIGUSR1 stops workers in good order; SIGTERM, where the whole process group has got one already, would be the second
stop() {
    stopped=1
    for worker in "${workers[@]}"; do kill -USR1 "$worker" 2>/dev/null || true; done
}
trap stop TERM INT USR1

if [ -n "${SLURM_JOB_ID:-}" ]; then
    # a worker that fails or stops early is no reason to end the others
    srun --ntasks="$gpus" --gpus-per-task=1 --kill-on-bad-exit=0 \
        batchcam explain "$checkpoint" "$data" --out "$run" --device cuda "$@" &
    workers=($!)
else
    share=$(nproc) || share=''
    [[ $share =~ ^[1-9][0-9]{0,5}$ ]] || share=1
    share=$((share < gpus ? 1 : share / gpus))
    export BATCHCAM_THREADS="${BATCHCAM_THREADS:-$share}" BATCHCAM_WORKERS="${BATCHCAM_WORKERS:-$share}"
    IFS=, read -ra devices <<<"${CUDA_VISIBLE_DEVICES:-$(seq -s, 0 $((gpus - 1)))}"
    if [ "${#devices[@]}" -lt "$gpus" ]; then
        echo "$0: CUDA_VISIBLE_DEVICES names ${#devices[@]} GPUs, not $gpus" >&2
        exit 2
    fi
    for ((i = 0; i < gpus; i++)); do
        CUDA_VISIBLE_DEVICES=${devices[i]} \
            batchcam explain "$checkpoint" "$data" --out "$run" --task "$i/$gpus" --device cuda "$@" &
        workers+=($!)
    done
fi
[ -z "$stopped" ] || stop

# severity CODE: how bad an exit code is
severity() {
    case $1 in
    0) echo 0 ;;
    3) echo 1 ;;
    75) echo 2 ;;
    *) echo 3 ;;
    esac
}

worst=0
for worker in "${workers[@]}"; do
    code=0
    wait "$worker" || true
    while kill -0 "$worker" 2>/dev/null; do # a trap ends `wait` too
        wait "$worker" || true
    done
    wait "$worker" || code=$?
    [ "$(severity "$code")" -le "$(severity "$worst")" ] || worst=$code
done
exit "$worst"
