#!/usr/bin/env bash
# Several processes of one command on this machine, joined by jax.distributed.
#
#   launch/local.sh --processes=N [option ...] -- python main.py --config=FILE --mode=train --workdir=DIR
#
# One process per GPU; the GPUs are those of CUDA_VISIBLE_DEVICES if it is set. Options:
#   --devices=K      CPU processes with K virtual devices each, to try a run of many devices without having them
#   --port=PORT      port of process 0 (by default a free one)
#   --grace=SECONDS  time that the others get to stop after one has failed, before they are killed (60)
#   --dry-run        print the commands and start nothing
#
# Lines of process I are printed after "[I] ". Ctrl-C and SIGTERM go to every process. When a process fails, the others
# are stopped and its exit status is this script's.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

processes='' devices='' port='' grace=60
while (($#)); do
  case $1 in
    --processes=*) processes=${1#*=} ;;
    --devices=*) devices=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --dry-run) DRY_RUN=1 ;;
    --help) usage && exit ;;
    --) shift && break ;;
    -*) fail "$1: unknown option; see launch/local.sh --help" ;;
    *) break ;;
  esac
  shift
done
[[ $processes =~ ^[1-9][0-9]*$ ]] || fail "set --processes: the number of processes"
[[ $devices =~ ^([1-9][0-9]*)?$ ]] || fail "--devices=$devices: the number of virtual devices of each CPU process"
[[ $port =~ ^[0-9]*$ ]] || fail "--port=$port: a number"
[[ $grace =~ ^[0-9]+$ ]] || fail "--grace=$grace: a number of seconds"
(($#)) || fail "give the command after --, such as: -- python main.py --config=configs/digits.py --mode=train"

gpus=()
if [[ -z $devices ]]; then
  if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
  elif [[ $DRY_RUN == 0 ]]; then
    mapfile -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null)
  else
    mapfile -t gpus < <(seq 0 $((processes - 1)))
  fi
  ((${#gpus[@]} >= processes)) ||
    fail "--processes=$processes takes a GPU each, but ${#gpus[@]} are visible; --devices=1 starts CPU processes"
fi

# Below the ephemeral ports of Linux (from 32768 on), so that no program takes the port between this test and the bind.
while [[ -z $port ]]; do
  port=$((20000 + RANDOM % 12000))
  if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then port=''; fi
done

# command_of I ARGUMENT ...: sets `command` to what process I runs.
command_of() {
  local environment=("CUDA_VISIBLE_DEVICES=${gpus[$1]:-}")
  if [[ -n $devices ]]; then
    local flag=--xla_force_host_platform_device_count=$devices
    environment=(JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }$flag")
  fi
  command=(
    env "${environment[@]}" "${@:2}"
    "--coordinator_address=127.0.0.1:$port" "--num_processes=$processes" "--process_id=$1"
  )
}

if [[ $DRY_RUN != 0 ]]; then
  for ((i = 0; i < processes; i++)); do
    command_of "$i" "$@"
    quoted "${command[@]}"
  done
  exit
fi

declare -A number=() # pid -> I of the processes that run
stopping=0
forward() {
  local pid
  for pid in "${!number[@]}"; do kill -s "$1" -- "$pid" 2>/dev/null || true; done
}
trap 'stopping=1; forward INT' INT
trap 'stopping=1; forward TERM' TERM HUP # main.py saves on SIGTERM; a SIGHUP would end it at once

# A process group for each process: Ctrl-C at the terminal then reaches this script alone, which passes it on once.
# Without it, bash would start them with SIGINT ignored.
set -m
printers=()
for ((i = 0; i < processes; i++)); do
  exec {printer}> >(
    trap '' INT TERM HUP # the last lines come after the signal
    exec sed -u "s/^/[$i] /"
  )
  printers+=("$!")
  command_of "$i" "$@"
  "${command[@]}" >&"$printer" 2>&1 </dev/null {printer}>&- &
  number[$!]=$i
  exec {printer}>&-
done

# Polls, because a loop over `wait -n` can miss a process that ends between two calls.
status=0 deadline=''
while ((${#number[@]})); do
  sleep 0.2 &
  wait "$!" || true # unlike sleep in the foreground, lets a trap run at once
  for pid in "${!number[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then continue; fi
    wait "$pid" && code=0 || code=$?
    i=${number[$pid]}
    unset "number[$pid]"
    ((code != 0 && status == 0)) || continue
    status=$code deadline=$((SECONDS + grace))
    if ((!stopping)); then
      echo "process $i ended with status $code; stopping the others" >&2
      stopping=1
      forward TERM
    fi
  done
  # A process that waits for the dead one inside a collective operation never handles the signal.
  if [[ -n $deadline ]] && ((SECONDS > deadline)); then forward KILL; fi
done
wait "${printers[@]}" || true
exit "$status"
