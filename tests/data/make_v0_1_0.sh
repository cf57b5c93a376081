#!/usr/bin/env bash
# Made the stores of tests/data/v0.1.0 from the job files there, by ctd 0.1.0 as root on Linux; a later version makes other ones.
# In a folder, on a host and by a path of ctd that a store may keep: make_v0_1_0.sh /opt/ctd/bin/ctd
set -euo pipefail
ctd=$1
data=$(realpath "$(dirname "$0")/v0.1.0")
rm -rf /lab && mkdir /lab && cp "$data"/*.yaml "$data"/*.py /lab && cd /lab
run() { unshare --uts sh -c 'hostname node1; exec "$@"' - "$ctd" run "$@" --executor serial; }
run finished.yaml
run search.yaml
run failed.yaml || [ $? = 1 ]
run stopped.yaml &
until find stopped.zarr/run/checkpoints -type f 2>/dev/null | grep -q .; do sleep 0.2; done
pkill -TERM -f 'run stopped[.]yaml'
wait $! || [ $? = 75 ]
for name in finished search failed stopped; do
    rm -f "$data/$name.zip"
    (cd "$name.zarr" && find . -type f | sort | zip -qX9 "$data/$name.zip" -@)
done
rm -r /lab
