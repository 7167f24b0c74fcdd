#!/usr/bin/env bash
# One night of a job that runs every night: explain, verify, let `latest` point to the run, report, remove old runs.
# jobs/nightly.cron starts it from cron. Run it again after any failure.
#
#   jobs/nightly.sh --keep 14 model.pth photos runs --device cpu
#
#   runs/2026-11-24/        the run of that night
#   runs/2026-11-24.html    its report
#   runs/2026-11-24.log     what batchcam said
#   runs/latest             -> 2026-11-24, the newest run that was verified
#
# Two nights at once are kept apart by a lock in RUNS. Where its file system has none (some network mounts), name a
# folder on a disk of this machine: LOCKDIR=/var/tmp/you.
#
# Dates are local, as cron's schedule is; inside a run all times are UTC.
#
# A run that was interrupted (a signal, a time limit, the power) is finished by the next start, on the same day or later,
# before that begins its own: what one night is too short for, the next goes on with. Only if model, data or options have
# changed meanwhile it stays as it is, since it can't be finished any more.
# A second start on the day of a finished run does nothing, and fails if it names another checkpoint. One while another
# is at work ends at once, with 75.
#
# With --keep N, when a night has ended well, all runs go that are older than the N-th newest complete one, except
# `latest`. Only dated directories that hold a run.json are ever removed, each with its report and its log.
#
# With --sign KEY, KEY is a private key without a passphrase, or a public one whose private key an agent holds. Then
# batchcam verify RUN --signature RUN/signatures/manifest.json.sig --allowed-signers FILE tells whose run it is.
#
# Silent when all is well, as cron mails what is printed; otherwise it says what happened and what to do.
# A run of which most images could not be read replaces nothing: `latest` stays, --keep does not count it, and the next
# start of that day tries again.
#
# Exit codes: 0 done, 1 failed, 2 usage, 3 findings, 75 stopped early or another is at work. With unreadable samples (3)
# the run is complete and verified, and `latest` points to it; with findings of verify (3) it does not.
set -euo pipefail
shopt -s nullglob
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$(readlink -f "$0")")/common.sh"

usage() {
    cat <<'END'
usage: nightly.sh [--keep N] [--sign KEY] CKPT DATA RUNS [option of batchcam explain]...
  --keep N    remove runs that are older than the N newest complete ones (default: keep all)
  --sign KEY  sign the manifest of each verified run with this SSH key: RUN/signatures/manifest.json.sig
END
}

refuse() {
    echo "nightly.sh: $1" >&2
    usage >&2
    exit 2
}

give_up() {
    echo "nightly.sh: $1" >&2
    exit 1
}

# tell HEADLINE ADVICE: what cron mails
tell() {
    {
        echo "nightly.sh: $run: $1"
        echo
        echo "What to do: $2"
        echo "Latest verified run: $(readlink "$runs/latest" || echo none)"
        echo "Last lines of $run.log:"
        echo
        tail -n 15 "$run.log" | sed 's/^/    /' || true # no log where the disk is full
        echo
    } >&2
}

# fail STEP: tell, and end with the exit code in $code
fail() {
    local told="$1 failed" advice="mend what the error says and start the same command again; finished shards stay."
    [ "$code" -ne 75 ] || told="stopped early at $1"
    case $1-$code in
    explain-75) advice="nothing is lost. The next start goes on from the finished shards." ;;
    explain-*) advice+=" If model or data changed on purpose since the run was begun, move the run away." ;;
    verify-3) advice="do not use the run. Remove the files that are named and start the same command again today." ;;
    verify-*) advice="the run is complete, but was not verified. Start the same command again today." ;;
    sign-*) advice="the run is complete and verified, but not signed. Start the same command again today." ;;
    report-*) advice="the run is complete and verified. For its report start the same command again today." ;;
    esac
    tell "$told (exit code $code)" "$advice"
    exit "$code"
}

# step WORD...: leave batchcam's exit code in $code
step() {
    printf '%(%F %T)T batchcam%s\n' -1 "$(printf ' %q' "$@")" >>"$run.log" || true
    code=0
    attend batchcam "$@" >>"$run.log" 2>&1 || code=$?
}

sign() {
    local signature folder=$run/signatures
    mkdir -p -- "$folder" &&
        signature=$(ssh-keygen -Y sign -f "$key" -n batchcam <"$run/manifest.json") &&
        printf '%s\n' "$signature" >"$folder/.new" && mv -fT -- "$folder/.new" "$folder/manifest.json.sig"
}

explain_into() {
    run=$1
    local findings='' again=()
    [ ! -e "$run/manifest.json" ] || holds_images "$run" || again=(--retry-unreadable)
    step explain "$checkpoint" "$data" --out "$run" "${options[@]}" "${again[@]}"
    case $code in
    0) ;;
    3) findings=1 ;;
    *) fail explain ;;
    esac
    step verify "$run"
    [ "$code" -eq 0 ] || fail verify
    if ! holds_images "$run"; then
        ended=3
        tell "most images could not be read (exit code 3)" "mount their storage and start the same command again today."
        return
    fi
    if [ -n "$key" ] && ! sign >>"$run.log" 2>&1; then
        code=1
        fail sign
    fi
    point "$runs/latest" "$(basename "$run")"
    step report "$run" --out "$run.html"
    [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || fail report
    if [ -n "$findings" ]; then
        ended=3
        tell "done, with findings (exit code 3)" "look at them: batchcam info ${run@Q}, or its report ${run@Q}.html."
    fi
}

# leave the dated runs in $found, oldest first
find_runs() {
    local plan LC_ALL=C
    found=()
    for plan in "$runs"/[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]/run.json; do
        [ -L "${plan%/run.json}" ] || found+=("${plan%/run.json}")
    done
}

remove_old_runs() {
    local i old gone complete=0
    rm -rf -- "$runs"/.removed-????-??-??
    find_runs
    for ((i = ${#found[@]} - 1; i >= 0; i--)); do
        old=${found[i]}
        if [ "$complete" -lt "$keep" ]; then
            [ ! -e "$old/manifest.json" ] || ! holds_images "$old" || complete=$((complete + 1))
        elif [ ! "$old" -ef "$runs/latest" ]; then
            gone=$runs/.removed-$(basename "$old")
            mv -T -- "$old" "$gone" # half removed, it would look like an interrupted run
            rm -rf -- "$gone" "$old.html" "$old.log"
        fi
    done
}

keep='' key=''
while [ $# -gt 0 ]; do
    case $1 in
    --keep)
        [[ ${2-} =~ ^[1-9][0-9]{0,8}$ ]] || refuse "--keep ${2-}: not a number of runs"
        keep=$2 && shift
        ;;
    --sign)
        [ -f "${2-}" ] || refuse "--sign ${2-}: not a key's file"
        key=$2 && shift
        ;;
    -h | --help)
        usage
        exit
        ;;
    -*) refuse "no such option: $1" ;;
    *) break ;;
    esac
    shift
done
[ $# -ge 3 ] || refuse "CKPT, DATA or RUNS is missing"
checkpoint=$1 data=$2 runs=${3%/}
shift 3
[ -L "$runs/latest" ] || [ ! -e "$runs/latest" ] || refuse "$runs/latest: is in the way; it has to be a link, or nothing"
options=("$@")
command -v batchcam >/dev/null ||
    give_up "no batchcam in $PATH; add its virtual environment's bin to PATH, in a crontab by a line PATH=…"

mkdir -p -- "$runs"
lock "$runs"
day=$(date +%F) || day=''
[[ $day =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] || give_up "\`date +%F\` says ${day@Q}, which is no day"
today=$runs/$day
if [ "$runs/latest" -ef "$today" ] && [ -e "$today.html" ] &&
    { [ -z "$key" ] || [ -e "$today/signatures/manifest.json.sig" ]; }; then
    [ -f "$checkpoint" ] || exit 0
    digest=$(sha256sum <"$checkpoint") || digest=''
    [[ $digest =~ ^[0-9a-f]{64} ]] || give_up "cannot read $checkpoint: sha256sum says ${digest@Q}"
    plan=$(<"$today/run.json")
    [[ $plan != *"${BASH_REMATCH[0]}"* ]] || exit 0
    give_up "$today is finished, but explains another checkpoint: move it away to explain today's"
fi

ended=0
find_runs
if [ ${#found[@]} -gt 0 ]; then
    run=${found[-1]}
    if [ "$run" != "$today" ] && [ ! -e "$run/manifest.json" ]; then
        step explain "$checkpoint" "$data" --out "$run" "${options[@]}" --dry-run
        case $code in
        0) explain_into "$run" ;;
        75) fail explain ;;
        *) tell "interrupted, and can't be finished now" "nothing, if model, data or options have changed. Goes on with $today." ;;
        esac
    fi
fi
explain_into "$today"
[ -z "$keep" ] || remove_old_runs
exit "$ended"
