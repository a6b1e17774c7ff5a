#!/usr/bin/env bash
# Training on Kubernetes: a JobSet of NUM_PROCESSES pods, one process a pod with all of the pod's GPUs.
#
#   launch/kubernetes.sh [main.py flag ...]             kubectl apply
#   launch/kubernetes.sh --dry-run [main.py flag ...]   print the manifest, to read, change and apply by hand
#
# Variables: IMAGE, NAME, NUM_PROCESSES, GPUS_PER_POD (0 for none), CONFIG and WORKDIR; optionally VOLUME_CLAIM, a
# claim that many pods may write, mounted at /shared; CPUS_PER_POD, MEMORY_PER_POD and MAX_RESTARTS (100).
#
# Exit status 2, a user error, fails the JobSet. After any other failure, or if a pod is evicted, all pods start again
# from the last checkpoint. The cluster needs Kubernetes 1.26 or newer and JobSet 0.6 or newer.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
  --dry-run) DRY_RUN=1 && shift ;;
  --help) usage && exit ;;
esac
[[ ${1:-} != -- ]] || shift
need IMAGE "the container image, built from launch/Dockerfile" \
  NAME "the name of the JobSet, yours to choose" \
  NUM_PROCESSES "the number of pods" \
  GPUS_PER_POD "the number of GPUs of each pod, 0 for none" \
  CONFIG "the config file, such as configs/cifar10_ncsnv2.py" \
  WORKDIR "the directory of the run, a gs:// address or a path below /shared"
# Kubernetes names the first pod NAME-workers-0-0 and allows 63 characters.
[[ $NAME =~ ^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$ ]] ||
  fail "NAME=$NAME: at most 52 small letters, digits and hyphens, a letter first"
[[ $NUM_PROCESSES =~ ^[1-9][0-9]*$ ]] || fail "NUM_PROCESSES=$NUM_PROCESSES: a number of pods"
# shellcheck disable=SC2153 # CPUS_PER_POD is another variable
[[ $GPUS_PER_POD =~ ^(0|[1-9][0-9]*)$ ]] || fail "GPUS_PER_POD=$GPUS_PER_POD: a number of GPUs"
MAX_RESTARTS=${MAX_RESTARTS:-100}
[[ $MAX_RESTARTS =~ ^[0-9]+$ ]] || fail "MAX_RESTARTS=$MAX_RESTARTS: a number of restarts"
[[ $WORKDIR == *://* || (-n ${VOLUME_CLAIM:-} && $WORKDIR == /shared/*) ]] ||
  fail "WORKDIR=$WORKDIR is lost with its pod: take a gs:// address, or set VOLUME_CLAIM and a path below /shared"

# A YAML string.
string() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

command=''
for word in python main.py "--config=$CONFIG" --mode=train "--workdir=$WORKDIR" "$@"; do
  command+="              - $(string "${word//\$(/\$\$(}")"$'\n' # $$( is a $( that Kubernetes leaves alone
done

limits=''
limit() { limits+="${limits:+, }$1"; }
[[ -z ${CPUS_PER_POD:-} ]] || limit "cpu: $(string "$CPUS_PER_POD")"
[[ -z ${MEMORY_PER_POD:-} ]] || limit "memory: $(string "$MEMORY_PER_POD")"
[[ $GPUS_PER_POD == 0 ]] || limit "nvidia.com/gpu: $GPUS_PER_POD"

mount='' volume=''
if [[ -n ${VOLUME_CLAIM:-} ]]; then
  mount=$'\n              - {name: shared, mountPath: /shared}'
  volume=$'\n            - '"{name: shared, persistentVolumeClaim: {claimName: $(string "$VOLUME_CLAIM")}}"
fi

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $NAME
spec:
  network:
    enableDNSHostnames: true # process 0 is found by the name of its pod
    publishNotReadyAddresses: true
  failurePolicy:
    maxRestarts: $MAX_RESTARTS # of all pods: the others cannot go on without the one that failed
    rules:
    - name: mistake
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy] # the exit status 2 below
  replicatedJobs:
  - name: workers
    replicas: 1
    template:
      spec:
        parallelism: $NUM_PROCESSES
        completions: $NUM_PROCESSES
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {containerName: main, operator: In, values: [2]}
            onPodConditions: [] # older JobSets require it
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300 # to save a checkpoint after SIGTERM
            securityContext: {fsGroup: 1000} # the image's user, so that it may write the volume
            containers:
            - name: main
              image: $(string "$IMAGE")
              command: # no shell: Python itself gets the SIGTERM
$command\
              - --coordinator_address=$NAME-workers-0-0.$NAME:8476
              - --num_processes=$NUM_PROCESSES
              - --process_id=\$(JOB_COMPLETION_INDEX)
              resources: {limits: {$limits}}
              volumeMounts:
              - {name: memory, mountPath: /dev/shm}$mount
            volumes:
            - {name: memory, emptyDir: {medium: Memory}} # NCCL and data loaders need more than 64 MB$volume
YAML
}

if [[ $DRY_RUN != 0 ]]; then
  echo "# kubectl apply --filename=-"
  manifest
else
  manifest | kubectl apply --filename=-
fi
