#!/bin/bash
# The first process of a node, inside its namespaces: NAME FOLDER CGROUP SHARED...
set -eu
name=$1 folder=$2 group=$3
shift 3
hostname "$name"
mount --make-rprivate /
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/resolv.conf" /etc/resolv.conf
mount -t tmpfs -o size=1g tmpfs /dev/shm
if [ -n "$group" ]; then # this node's part of the hierarchy, as if it were all
  mount -t tmpfs tmpfs /sys/fs/cgroup
  mkdir /sys/fs/cgroup/freezer
  mount -t cgroup -o freezer freezer /sys/fs/cgroup/freezer
fi
own=$folder/tmp-$name
mkdir -p -m 1777 "$own"
for path in "$@"; do
  mkdir -p "$own/${path#/tmp/}"
  mount --rbind "$path" "$own/${path#/tmp/}"
done
mount --rbind "$own" /tmp
cd /
# Jobs must not see the environment of whoever started the lab.
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME="$HOME" \
  SLURM_CONF="$folder/slurm.conf" slurmd -D -N "$name" &
while :; do # the first process reaps orphans
  wait -n || true
  sleep 0.2
done
