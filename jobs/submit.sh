#!/usr/bin/env bash
# Submit a run to Slurm: an array explains it; when all its tasks have ended well, one job merges, verifies, reports,
# and compares with an older run. Run it again after a failure: finished shards stay.
#
#   jobs/submit.sh --tasks 8 --at-once 4 --gpus model.pth photos/test runs/monday
#   jobs/submit.sh --against runs/monday --max-flips 2 model.pth photos/test runs/tuesday --shard-size 1000
#
# Partition, account and their like come from SBATCH_PARTITION, SBATCH_ACCOUNT, … for both jobs.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: submit.sh [option]... CKPT DATA RUN [option of batchcam explain]...
  --tasks N          tasks of the array, which share the shards (8)
  --at-once N        how many of them may run at the same time (all)
  --gpus             a GPU for each task, which fails without one that works
  --stage            each task copies DATA, a folder, to its node's own disk first
  --sbatch OPTION    an option of sbatch for the array, such as --time=08:00:00; may be repeated
  --against OLD      an older run to compare with, and gates that end the last job with exit code 3:
                     --max-flips P, --max-accuracy-drop P, --min-cam-similarity S,
                     --min-class-similarity S, --min-compared P; or --shared-classes
  --wait             return when the last job has ended, with its exit code
  --dry-run          print the lines for sbatch, submit nothing
EOF
}

refuse() {
    echo "submit.sh: $1" >&2
    usage >&2
    exit 2
}

tasks=8 at_once='' old='' wait='' dry_run='' stage='' array=() gates=() device=()
while [ $# -gt 0 ]; do
    case $1 in
    --tasks | --at-once | --sbatch | --against | --max-flips | --max-accuracy-drop | --min-cam-similarity | \
        --min-class-similarity | --min-compared)
        [ $# -ge 2 ] || refuse "$1 needs a value"
        ;;&
    --tasks | --at-once) [[ $2 =~ ^[1-9][0-9]*$ ]] || refuse "$1 $2: not a number of tasks" ;;&
    --tasks) tasks=$2 && shift ;;
    --at-once) at_once=$2 && shift ;;
    --sbatch) array+=("$2") && shift ;;
    --against) old=$2 && shift ;;
    --max-*) gates+=("$1" "$2") && shift ;;
    --min-*) gates+=("$1" "$2") && shift ;;
    --shared-classes) gates+=("$1") ;;
    --gpus) array+=(--gpus-per-task=1) device=(--device cuda) ;;
    --stage) stage=,EXPLAIN_STAGE=1 ;;
    --wait) wait=1 ;;
    --dry-run) dry_run=1 ;;
    -h | --help)
        usage
        exit
        ;;
    -*) refuse "no such option: $1" ;;
    *) break ;;
    esac
    shift
done
[ $# -ge 3 ] || refuse "CKPT, DATA or RUN is missing"
[ -n "$old" ] || [ ${#gates[@]} -eq 0 ] || refuse "${gates[0]} needs --against"
checkpoint=$1 data=$2 run=$3
shift 3
[ -z "$stage" ] || [ -d "$data" ] || refuse "--stage copies folders only, not $data"
jobs=$(dirname "$(readlink -f "$0")")

explain=(sbatch --parsable --array="0-$((tasks - 1))%${at_once:-$tasks}" --export="ALL,EXPLAIN_TASKS=$tasks$stage"
    "${array[@]}" "$jobs/explain.sbatch" "$checkpoint" "$data" "$run" "${device[@]}" "$@")
finish=(sbatch --parsable --kill-on-invalid-dep=yes)
then=("$jobs/finish.sbatch" "$data" "$run" ${old:+"$old"} "${gates[@]}")

if [ -n "$dry_run" ]; then
    printf '%q ' "${explain[@]}" && echo
    printf '%q ' "${finish[@]}" --dependency=afterok:EXPLAIN "${then[@]}" && echo
    exit
fi

# submit JOB COMMAND...: print JOB and leave its id in $id: the last line that is one, as sites let sbatch say more. The
# cluster's name may follow it.
submit() {
    local said code=0
    said=$("${@:2}") || code=$?
    id=$(sed -nE 's/^(Submitted batch job )?([0-9]+)(;.*)?[[:space:]]*$/\2/p' <<<"$said" | tail -n 1)
    if [ "$code" -ne 0 ] || [ -z "$id" ]; then
        echo "submit.sh: no job id for $1: sbatch ended with exit code $code and printed ${said@Q}; squeue --me" >&2
        exit $((code ? code : 1))
    fi
    echo "$1 $id"
}

mkdir -p logs # or the jobs would fail without a word
submit explain "${explain[@]}"
explain_id=$id
cat >&2 <<EOF
If a task fails, the finish job is cancelled. Why: grep -e error: -e FAILED logs/*-${explain_id}_*.out
EOF
submit finish "${finish[@]}" --dependency="afterok:$explain_id" "${then[@]}"
[ -n "$wait" ] || exit 0

# not by `sbatch --wait`: it calls a job that never started a success
ended='JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT|OUT_OF_MEMORY|DEADLINE|NODE_FAIL|BOOT_FAIL|PREEMPTED|REVOKED) '
ended+='.* ExitCode=([0-9]+)'
unanswered=0
until answer=$(timeout 30 scontrol show job --oneliner "$id") && [[ $answer =~ $ended ]]; do
    unanswered=$((unanswered + 1))
    [ -z "$answer" ] || unanswered=0
    if [ "$unanswered" -ge 120 ]; then # ten minutes
        echo "submit.sh: Slurm says nothing of job $id any more; how the run is: batchcam info ${run@Q}" >&2
        exit 1
    fi
    sleep 5
done
state=${BASH_REMATCH[1]} code=${BASH_REMATCH[2]}
[ "$state" != CANCELLED ] || grep -e error: -e FAILED logs/*-"$explain_id"_*.out >&2 || true
[ "$state" = COMPLETED ] || [ "$code" -ne 0 ] || code=1
exit "$code"
