# shellcheck shell=bash
# What nightly.sh and retrain.sh have in common; they read it, nobody runs it.
set -euo pipefail

child='' stopped=''

# The script was asked to stop. SIGUSR1 ends every command of batchcam, and lets those that can land their work first;
# a second SIGTERM, where the whole process group has got one, would cut that short.
stop() {
    stopped=1
    [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null || true
}
trap stop TERM INT

# attend COMMAND...: return its exit code, or 75 if the script was asked to stop.
# In the background, as bash would run the trap only after the command otherwise.
attend() {
    local code=0
    [ -z "$stopped" ] || return 75
    "$@" &
    child=$!
    [ -z "$stopped" ] || stop
    wait "$child" || true
    while kill -0 "$child" 2>/dev/null; do # a trap ends `wait` too
        wait "$child" || true
    done
    wait "$child" || code=$?
    child=''
    [ -z "$stopped" ] || code=75
    return "$code"
}

# lock FOLDER: keep others out for as long as this script lives, or a batchcam that it started and could not end.
# The lock lies in FOLDER, or in LOCKDIR, which keeps out others of this machine only.
lock() {
    local file=$1/.lock refused=0 at_work=99 # of 64 to 78 flock makes use itself
    [ -z "${LOCKDIR:-}" ] || file=$LOCKDIR/batchcam-$(readlink -f -- "$1" | sha256sum | cut -c 1-16).lock
    exec 9>>"$file"
    flock --nonblock --conflict-exit-code "$at_work" 9 || refused=$?
    case $refused in
    0) printf 'process %s on %s, since %(%F %T)T,\n' $$ "$HOSTNAME" -1 >"$file" || true ;;
    "$at_work")
        echo "${0##*/}: not started: $(cat "$file") is at work in $1" >&2
        exit 75
        ;;
    *)
        echo "${0##*/}: not started: flock could not lock $file (exit code $refused). If its file system has no locks," \
            "name a folder on a disk of this machine: LOCKDIR=/var/tmp/you" >&2
        exit 1
        ;;
    esac
}

# point LINK NAME: at every moment LINK points to something, and in the end to NAME beside it.
point() {
    local new
    new=$(dirname "$1")/.new-$(basename "$1")
    ln -sfnT -- "$2" "$new" && mv -fT -- "$new" "$1"
}

# holds_images RUN: whether at least half of the images of a complete run could be read. A run of nothing, as when the
# image server is away, replaces nothing.
holds_images() {
    local totals samples unreadable
    totals=$(sed -n '/^ "totals": {/,/^ }/p' "$1/manifest.json")
    samples=$(sed -n 's/^  "samples": \([0-9]*\).*/\1/p' <<<"$totals")
    unreadable=$(sed -n 's/^   "unreadable": \([0-9]*\).*/\1/p' <<<"$totals")
    [ $((2 * ${unreadable:-0})) -le "${samples:-0}" ]
}
