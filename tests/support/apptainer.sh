#!/bin/bash
# A stand-in for apptainer: `apptainer exec [--nv] [--bind=FOLDER ...] IMAGE COMMAND ...`, as far as an allocation depends on it.
# As apptainer-exec(1) says, the command gets the image's PATH and, for the rest, the caller's environment, and a folder
# that is to be bound must exist. As apptainer does, it passes signals on to the command and ends with its exit code.
# Not as apptainer: the command sees the machine's files. An image is a file that holds its PATH; IMAGE.log tells what ran.
fail() { echo "FATAL: $*" >&2; exit 255; }
[ "${1:-}" = exec ] || fail "unknown command ${1:-}"
shift
while [[ ${1:-} == --* ]]; do
  case $1 in
    --nv) ;;
    --bind=*) folder=${1#--bind=} folder=${folder%%:*}; [ -e "$folder" ] || fail "mount source $folder doesn't exist" ;;
    *) fail "unknown flag: $1" ;;
  esac
  shift
done
image=$1
shift
[ -f "$image" ] || fail "could not open image $image: no such file or directory"
[ -z "${APPTAINER_CONTAINER:-}" ] || fail "already in $APPTAINER_CONTAINER"
echo "$*" >>"$image.log"
export APPTAINER_CONTAINER=$image PATH
PATH=$(cat "$image")
# A background command would ignore INT, were job control off.
set -m
"$@" &
child=$!
for name in HUP INT TERM USR1 USR2; do trap "kill -$name $child" $name; done
while wait $child; rc=$?; kill -0 $child 2>/dev/null; do :; done
exit $rc
