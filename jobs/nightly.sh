#!/usr/bin/env bash
# One night of a job that runs every night: explain, verify, let `latest` point to the run, report, remove old runs.
# jobs/nightly.cron starts it from cron. Run it again after any failure. `batchcam nightly --help` tells the rest.
#
#   jobs/nightly.sh --keep 14 model.pth photos runs --device cpu
#
#   runs/2026-11-24/        the run of that night; runs/2026-11-24.html its report, runs/2026-11-24.log what batchcam said
#   runs/latest             -> 2026-11-24, the newest run that was verified
#   runs/2026-11-24/signatures/manifest.json.sig  with --sign KEY: whose run it is; others in docs/desk.md
#   runs/trend/trend.html   with --trend: what moves over the nights; an alarm is a finding (3)
#   runs/keep               yours: names of runs that are never removed, one a line
#
# To adapt it, do before the last line what a night needs: mount the photos, load a module, export BATCHCAM_DEVICE=cpu,
# LOCKDIR=/var/tmp/you (locks on a disk of this machine), umask 002. Dates are local, as cron's schedule is.
#
# Exit codes: 0 done, 1 failed, 2 usage, 3 findings, 75 stopped early or another is at work. With unreadable samples (3)
# the run is complete and verified, and `latest` points to it; with findings of verify (3) it does not.
set -euo pipefail

command -v batchcam >/dev/null || {
    echo "nightly.sh: no batchcam in $PATH; add its virtual environment's bin to PATH, in a crontab by a line PATH=…" >&2
    exit 1
}
exec batchcam nightly "$@"
