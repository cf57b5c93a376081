set -u
# With `sbatch --export=NONE` steps would not inherit what is set here (sbatch(1), --export).
export SLURM_EXPORT_ENV=ALL

# --- What this allocation tells of itself -------------------------------------------------------------
# allocations.tsv: time, allocation, what happened, detail. `ctd status` reads it once Slurm has forgotten the job.
# A task of an array is known as ARRAY_TASK: one of the tasks has the id of the array, and for that id Slurm answers with all tasks.
number=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
number=${number:-$SLURM_JOB_ID}
note() { printf '%(%s)T\t%s\t%s\t%s\n' -1 "$number" "$1" "${2:-}" >>"$home/allocations.tsv"; }
count() { echo "$1 $2$([ "$1" = 1 ] || echo s)"; }
say() { printf '%(%F %T)T [%s] %s\n' -1 "$number" "$*"; }
# Tested first: without these folders Ray would fail, and complain of tokens. On a node that does not see ours Slurm makes `home`,
# for its output; that one lacks allocation.sbatch.
refuse() { say "$*"; { note ended 2; } 2>/dev/null; exit 2; }
for folder in home work_dir; do
  [ -e "$home/allocation.sbatch" ] && [ -d "${!folder}" ] && [ -w "${!folder}" ] ||
    refuse "$folder: ${!folder} is not there on $SLURMD_NODENAME, or cannot be written: give a folder that all nodes see"
done
[ -z "$python" ] || command -v "$python" >/dev/null ||
  refuse "python: $python is not there on $SLURMD_NODENAME: give one that all nodes see"
for program in ${inside[0]:-ray ctd}; do
  command -v "$program" >/dev/null ||
    refuse "$program: not found on $SLURMD_NODENAME: give modules or setup lines that lead to it on all nodes"
done
# `ctd cancel` came between two allocations: nobody else tells this one.
if [ -e "$home/cancelled" ]; then
  note cancelled
  say "cancelled"
  exit 75
fi
started=$(grep -c "${SLURM_ARRAY_JOB_ID:+$'\t'$number}"$'\tstarted\t' "$home/allocations.tsv" 2>/dev/null)
refuse_beyond() {
  (($1 >= max_allocations)) || return
  note limit "$max_allocations"
  say "started $(count "$1" time) already (max_allocations): left as it is; ctd submit continues it"
  exit 75
}
refuse_beyond "${started:-0}"  # where Slurm itself has requeued it
note started "$SLURM_JOB_NODELIST"
# Where the driver says how far the store has come, when it is stopped.
export CTD_PROGRESS=$home/progress${SLURM_ARRAY_TASK_ID:+-$SLURM_ARRAY_TASK_ID}
progress() { cat "$CTD_PROGRESS" 2>/dev/null; }
before=$(progress)

# --- Signals ------------------------------------------------------------------------------------------
# USR1: the time limit or a preemption is near. TERM: cancelled, requeued by Slurm (a lost node), or the limit is there and USR1
# came before this script listened, as it does where the limit is a minute. Both let the driver write checkpoints.
# CONT, which Slurm sends along, must not be trapped: bash 5.2 then loses the other signal.
driver='' again=1 stop='' requeued=''
# (An srun that gets a TERM kills what it runs; other signals it passes on.)
stop_driver() {
  local signal=$1
  [ "${run[0]}" != srun ] || signal=USR1
  stop=1; [ -z "$driver" ] || kill -"$signal" "$driver"
}
terminated() {
  stop_driver TERM
  local told
  told=$(scontrol show job --oneliner "$number")
  if [[ $told == *' Reason=TimeLimit '* ]]; then
    say "the time limit is reached"
  elif [[ $told =~ ' Restarts='([0-9]+) ]] && ((BASH_REMATCH[1] > ${SLURM_RESTART_COUNT:-0})); then
    say "Slurm ends this allocation, which lost a node or was preempted, and starts it again"
    requeued=1
  elif [[ $told == *' Reason=NodeDown '* || $told =~ ' PreemptTime='[0-9] ]]; then
    say "Slurm ends this allocation, which lost a node or was preempted"
  else
    say "cancelled"
    again=
  fi
}
trap 'say "time limit or preemption ahead"; stop_driver USR1' USR1
trap terminated TERM
# A trapped signal ends `wait` early.
await() { local rc; while wait "$1"; rc=$?; kill -0 "$1" 2>/dev/null; do :; done; return $rc; }

# --- A Ray that nobody else finds, and that finds nobody else ------------------------------------------
tokens=$work_dir/token-${SLURM_CLUSTER_NAME:-cluster}
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$tokens-$SLURM_JOB_ID RAY_USAGE_STATS_ENABLED=0
export RAY_raylet_start_wait_time_s=120
# Ray tells metrics to whoever asks, without a token. Two of their servers cannot be switched off; without a port they do not start.
export RAY_enable_metrics_collection=0 DASHBOARD_METRIC_PORT=65536 AUTOSCALER_METRIC_PORT=65536
# Workers started in advance would lack our thread settings: useless.
export RAY_prestart_worker_first_driver=0
# Seconds that a node which is told to end waits for its work. Slurm kills 30 s after a scancel.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=3
# By file and not by value: the environment of a job can be read by others.
# An allocation that Slurm killed has left its token. (They are listed first: who begins now is in the queue.)
left=("$tokens"-*) queued=" $(squeue --noheader --user="$(id -un)" --format=%A | tr '\n' ' ')"
if [[ $queued == *" $SLURM_JOB_ID "* ]]; then
  for token in "${left[@]}"; do
    id=${token#"$tokens"-}
    # token-hpc-gpu-7 is of the cluster hpc-gpu, of which the queue of hpc knows nothing.
    [[ $id == *[!0-9]* || $queued == *" $id "* ]] || rm -f "$token"
  done
fi
rm -f "$RAY_AUTH_TOKEN_PATH"
(umask 077; od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")
# On the node's own disk, and short: Ray hangs where its path has more than 40 characters. Closed to
# others: Ray opens its own folder to all.
export own_tmp=/tmp/ctd-$SLURM_JOB_ID
ray_tmp=$own_tmp/ray
ulimit -n "$(ulimit -Hn)" 2>/dev/null

try=${SLURM_RESTART_COUNT:-0} nodes=$SLURM_JOB_NUM_NODES cpus=${SLURM_CPUS_PER_TASK:-1} gpus=${SLURM_GPUS_ON_NODE:-0}
# --overlap: a second step would wait for the first. --cpus-per-task: steps do not inherit it.
step=(srun --overlap --kill-on-bad-exit=1 --ntasks-per-node=1 --cpus-per-task="$cpus" --mem=0)

# Options of srun that run a step in a container (Pyxis) are those of our own steps.
contained=("${step[@]}")
if [ "${inside[0]:-}" = srun ]; then
  contained+=("${inside[@]:1}") run=("${step[@]}" -N 1 -n 1 -w "$SLURMD_NODENAME" --job-name=driver "${run[@]:1}") inside=()
fi

# 100 ports, in the first block from the allocation's id on that nobody listens in on any of its nodes.
block=$((SLURM_JOB_ID % 200 + 100))
# The files that an allocation which Slurm killed has left on these nodes go, too. (Later ids may be of allocations that began since
# the queue was listed.)
[[ $queued == *" $SLURM_JOB_ID "* ]] || queued=
taken=" $("${step[@]}" -N "$nodes" -n "$nodes" --job-name=ports bash -c '
  for folder in /tmp/ctd-*; do
    id=${folder#/tmp/ctd-}
    [ -z "$1" ] || [ ! -O "$folder" ] || [[ $id == *[!0-9]* || $1 == *" $id "* ]] || ((id > SLURM_JOB_ID)) || rm -rf "$folder"
  done
  while read -r _ local _ state _; do
    [ "$state" != 0A ] || echo $((16#${local##*:} / 100))
  done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)' - "$queued" | sort -nu | tr '\n' ' ')"
while [[ $taken == *" $block "* ]]; do block=$(((block - 99) % 200 + 100)); done
port=$((block * 100))
ports=(--node-manager-port=$((port + 1)) --object-manager-port=$((port + 2))
  --dashboard-agent-listen-port=$((port + 3)) --dashboard-agent-grpc-port=$((port + 4))
  --runtime-env-agent-port=$((port + 5)) --metrics-export-port=$((port + 6))
  --min-worker-port=$((port + 10)) --max-worker-port=$((port + 99)))
# The server for Ray's clients is by default on the same port for every head.
head_ports=(--port="$port" --ray-client-server-port=$((port + 7)))

# What was allocated: Ray by itself would offer the whole machine. Results do not pass through its
# object store, which is therefore small.
offer=(--num-cpus="$cpus" --num-gpus="$gpus" --memory=$((memory_mb * 800000))
  --object-store-memory=100000000 --temp-dir="$ray_tmp" --disable-usage-stats --log-color=false
  --include-log-monitor=false)  # it would send workers' output to the driver, which reads none

# Slurm's address of this node: `hostname -i` is 127.0.1.1 on some systems.
address=$(scontrol getaddrs "$SLURMD_NODENAME" 2>/dev/null | sed 's/^[^:]*: *//; s/:[0-9]*$//')
address=$(getent ahostsv4 "${address:-$SLURMD_NODENAME}" | sed -n '1s/ .*//p')

# A node's share: its files go with it, whichever way the step ends. --block keeps Ray's processes
# inside the step; `ray stop` would end other jobs' Ray too. Ray gives its processes a while to start, which a
# busy node exceeds now and then: it is started again then. While it starts it may not hear a TERM.
on_node='end=; trap end=1 TERM INT; export TMPDIR=$own_tmp
  for attempt in 1 2 3; do
    ((attempt == 1)) || echo "Ray did not start in time: try $attempt of 3"
    rm -rf "$own_tmp"; mkdir -m 700 "$own_tmp" || exit
    "$@" > >(trap "" TERM INT; exec tee "$own_tmp/said") 2>&1 & ray=$!
    while wait $ray; rc=$?; kill -0 $ray 2>/dev/null; do
      kill -TERM $ray
      for ((k = 0; k < 50; k++)); do kill -0 $ray 2>/dev/null && sleep 0.3; done
      kill -KILL $ray 2>/dev/null
    done
    ((rc)) && [ -z "$end" ] && sleep 1 || break  # for tee to end
    grep -qs "timed out during startup" "$own_tmp/said" || break
  done
  rm -rf "$own_tmp"; [ -z "$end" ] || exit 0; exit $rc'
head=$home/head-$number.$try.log workers=$home/worker-$number.$try-
say "starting Ray on $SLURMD_NODENAME (log: ${head##*/})"
# In a name of srun's, % and a letter stand for something else.
"${contained[@]}" -N 1 -n 1 -w "$SLURMD_NODENAME" --job-name=ray-head --output="${head//%/%%}" \
  bash -c "$on_node" - "${inside[@]}" ray start --block --head --node-ip-address="$address" \
  --include-dashboard=false "${head_ports[@]}" "${ports[@]}" "${offer[@]}" &
steps=($!) rc=75 up=0 late= told=
for ((i = 0; i < 2000 && !stop; i++)); do  # three tries
  [ -s "$ray_tmp/ray_current_cluster" ] && break  # what ray start writes last
  kill -0 "${steps[0]}" 2>/dev/null || { rc=1; break; }
  ((i % 25)) || late=$(grep -s '^Ray did not start in time' "$head" | tail -n 1)
  [ "$late" = "$told" ] || { told=$late; say "$told"; }
  sleep 0.2
done
if ((rc == 1)); then
  say "the head did not start:"
  tail -n 20 "$head"
elif ((nodes > 1)) && [ -z "$stop" ]; then
  "${contained[@]}" -N $((nodes - 1)) -n $((nodes - 1)) -x "$SLURMD_NODENAME" --job-name=ray-workers \
    --output="${workers//%/%%}%n.log" \
    bash -c "$on_node" - "${inside[@]}" ray start --block --address="$address:$port" "${ports[@]}" "${offer[@]}" &
  steps+=($!)
  # The plan of a new store counts the workers that are there.
  for ((i = 0; i < 600 && !stop; i++)); do
    up=$(grep -ls 'Ray runtime started' "$workers"*.log | wc -l)
    ((up < nodes - 1)) && kill -0 "${steps[1]}" 2>/dev/null || break
    sleep 0.2
  done
fi

# --- The driver ---------------------------------------------------------------------------------------
if ((rc == 75)) && [ -z "$stop" ]; then
  say "Ray at $address:$port: $((up + 1)) of $(count "$nodes" node), each $(count "$cpus" CPU), $(count "$gpus" GPU), $memory_mb MB"
  ((up + 1 == nodes)) || say "the others are not up, and get work once they are: see $workers*.log"
  "${run[@]}" --address "$address:$port" &
  driver=$!
  [ -z "$stop" ] || kill -USR1 "$driver"
  await "$driver"
  rc=$? driver=
  # It did not live to see the signal.
  [ -z "$stop" ] || ((rc <= 128)) || rc=75
fi

# --- Tear-down by step, and what comes next -----------------------------------------------------------
# Now: after a scancel Slurm waits 30 s for the steps, and kills this script with them.
rm -f "$RAY_AUTH_TOKEN_PATH"
# (A signal to srun itself would kill: the node's files would stay.)
end_steps() {
  squeue --steps --noheader --jobs="$number" --format='%i %j' | while read -r id name; do
    [[ $name != ray-* ]] || scancel --signal=TERM "$id"
  done
}
end_steps
left=
for pid in "${steps[@]}"; do
  # A step that had just begun was not listed, and got no signal.
  for ((i = 1; ; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    ((i % 25)) || end_steps
    sleep 0.2
  done
  await "$pid" || left=1
done
# A step that was killed has left its node's files.
[ -z "$left" ] || "${step[@]}" -N "$nodes" -n "$nodes" --job-name=files rm -rf "$own_tmp"
note ended "$rc"
say "ended with $rc after $SECONDS s"
if ((rc == 75)) && { [ -z "$again" ] || [ -e "$home/cancelled" ]; }; then
  note cancelled
  say "cancelled; ctd submit continues it"
elif ((rc == 75)) && [ -n "$requeued" ]; then
  note requeued
elif ((rc == 75)); then
  # Allocations that all end at the same point would follow each other for ever.
  if [ "$(progress)" = "$before" ]; then echo "$number" >>"$CTD_PROGRESS.still"; else rm -f "$CTD_PROGRESS.still"; fi
  if (($(cat "$CTD_PROGRESS.still" 2>/dev/null | wc -l) >= 2)); then
    note stuck
    say "two allocations in a row have computed no shard and left no checkpoint: left as it is"
    exit 75
  fi
  refuse_beyond $((${started:-0} + 1))
  # A busy controller may not answer, or too late: it may have queued the job. Of a `ctd cancel` meanwhile only its file tells.
  next=
  if [ "$go_on" = requeue ]; then
    note requeued
    say "Slurm is asked to start this allocation again"
    trap '' USR1 TERM
    for pause in 5 20 60 0; do
      [ ! -e "$home/cancelled" ] || break
      scontrol requeue "$number" && exit
      sleep "$pause"
    done
  else
    for pause in 5 20 60; do
      [ ! -e "$home/cancelled" ] || break
      next=$(sbatch --parsable "$home/allocation.sbatch") && break
      sleep "$pause"
      next=$(squeue --me --noheader --states=PENDING,CONFIGURING,RUNNING --format='%A %o' | while read -r id command; do
        [ "$command" != "$home/allocation.sbatch" ] || [ "$id" = "$SLURM_JOB_ID" ] || echo "$id"
      done | head -n 1)
      [ -z "$next" ] || break
    done
    [ -z "$next" ] || { note chained "${next%%;*}"; say "allocation ${next%%;*} goes on"; }
  fi
  if [ -z "$next" ] && [ -e "$home/cancelled" ]; then
    note cancelled
    say "cancelled"
  elif [ -z "$next" ]; then
    note unqueued
    say "Slurm does not queue what comes next; ctd submit continues it"
  fi
fi
exit "$rc"
