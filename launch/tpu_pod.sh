#!/usr/bin/env bash
# Training on a Cloud TPU pod, from your own machine, with gcloud; the same command runs on every worker.
#
#   launch/tpu_pod.sh [--dry-run] create   create the TPU (SPOT=1: a preemptible one)
#   launch/tpu_pod.sh [--dry-run] copy     send the files of the last commit to every worker and install them there
#   launch/tpu_pod.sh [--dry-run] run -- python main.py --config=FILE --mode=train --workdir=gs://BUCKET/RUN
#   launch/tpu_pod.sh [--dry-run] logs     follow the logs of the workers (WORKER=I: of one)
#   launch/tpu_pod.sh [--dry-run] stop     stop the run, which saves a checkpoint
#   launch/tpu_pod.sh [--dry-run] delete   delete the TPU
#
# Variables: TPU_NAME and ZONE always, PROJECT if gcloud has no default; ACCELERATOR_TYPE and RUNTIME_VERSION for
# create; PYTHON for copy (python3.11, which Ubuntu 22.04 has; python3.12 on 24.04).
#
# gcloud reaches all workers at once through ssh-agent: ssh-add ~/.ssh/google_compute_engine before the first copy.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$root/launch/common.sh"

need_tpu() {
  need TPU_NAME "the name of the TPU, yours to choose" \
    ZONE "the zone of the TPU (gcloud compute tpus locations list)" "$@"
}

tpu() {
  run gcloud compute tpus tpu-vm "$@" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"}
}

on_workers() {
  tpu ssh "$TPU_NAME" "--worker=${2:-all}" "--command=$1"
}

create() {
  need_tpu ACCELERATOR_TYPE "the kind and size of the TPU (gcloud compute tpus accelerator-types list)" \
    RUNTIME_VERSION "the image of the workers (gcloud compute tpus tpu-vm versions list)"
  tpu create "$TPU_NAME" "--accelerator-type=$ACCELERATOR_TYPE" "--version=$RUNTIME_VERSION" ${SPOT:+--spot}
}

copy() {
  need_tpu
  local python=${PYTHON:-python3.11} archive
  [[ $python =~ ^python3\.[0-9]+$ ]] || fail "PYTHON=$python: a name such as python3.11"
  archive=$(git -C "$root" rev-parse --absolute-git-dir)/score_sde_jax.tar.gz # a place that is never itself archived
  git -C "$root" diff --quiet HEAD || echo "note: changes since the last commit are not sent" >&2
  run git -C "$root" archive "--output=$archive" HEAD
  tpu scp "$archive" "$TPU_NAME:score_sde_jax.tar.gz" --worker=all
  run rm "$archive"
  # A new worker first upgrades itself, during which it holds apt's lock.
  local apt="sudo apt-get -y -o DPkg::Lock::Timeout=600"
  on_workers "set -e; mkdir -p score_sde_jax; tar -xzf score_sde_jax.tar.gz -C score_sde_jax; cd score_sde_jax;\
 $python -c 'import ensurepip' || { $apt update; $apt install $python-venv; };\
 $python -m venv .venv; .venv/bin/pip install -c constraints.txt -e '.[tpu,gcs]'"
}

start() {
  need_tpu
  (($#)) || fail "give the command after run --, such as: run -- python main.py --config=FILE --workdir=gs://BUCKET/RUN"
  # setsid detaches the program from the ssh session, whose end would otherwise end it.
  on_workers "set -e; cd score_sde_jax; . .venv/bin/activate;\
 if [ -e run.pid ] && kill -0 \"\$(cat run.pid)\" 2>/dev/null; then\
 echo 'error: a run is under way; stop it first' >&2; exit 1; fi;\
 setsid $(quoted "$@") >>run.log 2>&1 </dev/null & echo \$! >run.pid"
}

logs() {
  need_tpu
  on_workers "tail -n 100 -F score_sde_jax/run.log | sed -u \"s/^/\$(hostname): /\"" "${WORKER:-all}"
}

stop() {
  need_tpu
  on_workers "kill -TERM \"\$(cat score_sde_jax/run.pid)\""
}

delete() {
  need_tpu
  tpu delete "$TPU_NAME"
}

[[ ${1:-} != --dry-run ]] || { DRY_RUN=1 && shift; }
action=${1:-help}
shift || true
[[ ${1:-} != -- ]] || shift
case $action in
  create | copy | logs | stop | delete)
    (($# == 0)) || fail "$1: $action takes no arguments"
    "$action"
    ;;
  run) start "$@" ;;
  help | --help) usage ;;
  *) fail "$action: unknown; one of create, copy, run, logs, stop, delete, help" ;;
esac
