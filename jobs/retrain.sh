#!/usr/bin/env bash
# Retrain and decide: train, evaluate, explain, verify, compare with the promoted version, then promote or refuse.
# Run the same command again after any interruption: training and explaining go on where they were.
#
#   jobs/retrain.sh photos/train photos/test models/first --weights DEFAULT
#   jobs/retrain.sh --max-flips 5 --min-cam-similarity 0.5 photos/train photos/test models/second --epochs 40
#
#   models/second/model.pth    the checkpoint (and model.last.pth, to go on from)
#   models/second/run/         its explanation of TEST
#   models/second/compare/     what moved since the version that was promoted then; in words: compare.txt beside it
#   models/promoted            -> first or second; one link, so that a checkpoint and its run are always of one version
#
# The first version is promoted without a comparison. A refused one stays where it is, for a look or for another start
# with other gates. Options of the other commands come from variables (BATCHCAM_DEVICE=cpu) or a file (BATCHCAM_CONFIG).
#
# Exit codes: 0 promoted; 1 failed; 2 usage; 3 refused, or promoted although some images could not be read: the last
# line says which; 75 stopped early, or another one is at work. Without promotion models/promoted stays as it was.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$(dirname "$(readlink -f "$0")")/common.sh"

usage() {
    cat <<'END'
usage: retrain.sh [gate]... TRAIN TEST VERSION [option of batchcam train]...
  --max-flips P            refuse if more per cent of the predictions changed
  --max-accuracy-drop P    refuse if accuracy fell by more percentage points (1, unless another gate is given)
  --min-cam-similarity S   refuse if the mean rank correlation of the CAMs is smaller
  --min-class-similarity S refuse if that of any class is smaller
  --min-compared P         refuse if less per cent of the promoted version's samples could be compared (95; 0: never)
  --shared-classes         compare the classes that both versions have
END
}

refuse_usage() {
    echo "retrain.sh: $1" >&2
    usage >&2
    exit 2
}

# end WORDS: say what became of the version, and end with the exit code in $code
end() {
    echo "retrain.sh: $version: $1; promoted: $(readlink "$models/promoted" || echo none)" >&2
    exit "$code"
}

# step WORD...: leave batchcam's exit code in $code: 0 or 3
step() {
    code=0
    attend batchcam "$@" || code=$?
    case $code in
    0 | 3) ;;
    75) end "stopped early at $1; run the same command again to go on" ;;
    *) end "not promoted: $1 failed (exit code $code), see above" ;;
    esac
}

gates=() shared=() evidence=()
while [ $# -gt 0 ]; do
    case $1 in
    --max-flips | --max-accuracy-drop | --min-cam-similarity | --min-class-similarity)
        [ $# -ge 2 ] || refuse_usage "$1 needs a value"
        gates+=("$1" "$2") && shift
        ;;
    --min-compared)
        [ $# -ge 2 ] || refuse_usage "$1 needs a value"
        evidence=("$1" "$2") && shift
        ;;
    --shared-classes) shared=("$1") ;;
    -h | --help)
        usage
        exit
        ;;
    -*) refuse_usage "no such option: $1" ;;
    *) break ;;
    esac
    shift
done
[ $# -ge 3 ] || refuse_usage "TRAIN, TEST or VERSION is missing"
train=$1 test=$2 version=${3%/}
shift 3
[ ${#gates[@]} -gt 0 ] || gates=(--max-accuracy-drop 1)
models=$(dirname "$version")
promoted=$models/promoted
[ "$(basename "$version")" != promoted ] || refuse_usage "$version: is the link to the promoted version; name a new one"
[ -L "$promoted" ] || [ ! -e "$promoted" ] || refuse_usage "$promoted: is in the way; it has to be a link, or nothing"

mkdir -p -- "$version"
lock "$models"
if [ "$version" -ef "$promoted" ]; then
    code=0
    end "is promoted already; nothing done"
fi

findings=0
step train "$train" --out "$version/model.pth" "$@"
[ "$code" -eq 0 ] || findings=3
step evaluate "$version/model.pth" "$test"
step explain "$version/model.pth" "$test" --out "$version/run"
[ "$code" -eq 0 ] || findings=3
step verify "$version/run" --recompute 16 --checkpoint "$version/model.pth" --data "$test"
[ "$code" -eq 0 ] || end "refused: the record of its explanation is not true, see above"
holds_images "$version/run" || { code=3 && end "refused: most images of TEST could not be read"; }
if [ -L "$promoted" ]; then
    old=$(readlink -f "$promoted")
    step compare "$old/run" "$version/run" --out "$version/compare" "${gates[@]}" "${evidence[@]}" "${shared[@]}" \
        >"$version/compare.txt"
    cat "$version/compare.txt"
    [ "$code" -eq 0 ] || end "refused: $(sed -n '/: exceeded/ s/^gate *//p' "$version/compare.txt" | paste -sd ';')"
fi
point "$promoted" "$(basename "$version")"
code=$findings
if [ "$code" -eq 0 ]; then
    end "promoted"
fi
end "promoted, with findings: some images could not be read, see above"
