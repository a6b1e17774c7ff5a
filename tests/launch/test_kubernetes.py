"""kubernetes.sh: its manifest, and the image of the pods."""

import pytest
from shells import LAUNCH, PODS, ROOT


def manifest(out):
    return pytest.importorskip("yaml").safe_load(out)


def test_kubernetes_dry_run_is_the_manifest(shell):
    flags = ["--config.data.dir=/shared/a b", '--config.x="$(NAME)\\']
    variables = {**PODS, "WORKDIR": "/shared/run", "VOLUME_CLAIM": "claim", "CPUS_PER_POD": "32"}
    status, out, err = shell.run("kubernetes.sh", "--dry-run", *flags, MEMORY_PER_POD="128Gi", **variables)
    assert (status, err) == (0, "")
    assert out.startswith("# kubectl apply --filename=-\napiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\n")
    documents = manifest(out)
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 300,
        "securityContext": {"fsGroup": 1000},
        "containers": [
            {
                "name": "main",
                "image": "image:1",
                "command": [
                    *("python", "main.py", "--config=c.py", "--mode=train", "--workdir=/shared/run"),
                    *("--config.data.dir=/shared/a b", '--config.x="$$(NAME)\\'),
                    *("--coordinator_address=run-workers-0-0.run:8476", "--num_processes=4"),
                    "--process_id=$(JOB_COMPLETION_INDEX)",
                ],
                "resources": {"limits": {"cpu": "32", "memory": "128Gi", "nvidia.com/gpu": 8}},
                "volumeMounts": [
                    {"name": "memory", "mountPath": "/dev/shm"},
                    {"name": "shared", "mountPath": "/shared"},
                ],
            }
        ],
        "volumes": [
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
            {"name": "shared", "persistentVolumeClaim": {"claimName": "claim"}},
        ],
    }
    mistake = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "main", "operator": "In", "values": [2]},
        "onPodConditions": [],
    }
    job = {
        "parallelism": 4,
        "completions": 4,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [mistake]},
        "template": {"spec": pod},
    }
    assert documents == {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "run"},
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": 100,
                "rules": [{"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": "workers", "replicas": 1, "template": {"spec": job}}],
        },
    }


def test_kubernetes_applies_what_it_prints(shell):
    shell.fake("kubectl", f"cat >{shell.tmp}/applied")
    variables = {**PODS, "GPUS_PER_POD": "0", "MAX_RESTARTS": "3"}
    _, printed, _ = shell.run("kubernetes.sh", "--dry-run", **variables)
    assert shell.run("kubernetes.sh", **variables) == (0, "", "")
    assert shell.calls("kubectl") == [["apply", "--filename=-"]]
    applied = (shell.tmp / "applied").read_text()
    assert printed == "# kubectl apply --filename=-\n" + applied
    spec = manifest(applied)["spec"]
    pod = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 3
    assert pod["containers"][0]["resources"] == {"limits": {}}
    assert [volume["name"] for volume in pod["volumes"]] == ["memory"]


def test_dockerfile_installs_and_then_drops_its_rights():
    text = (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]
    kinds = [kind for kind, _ in steps]
    assert steps[0] == ("FROM", "python:3.11-slim")
    assert ("ARG", 'EXTRA=""') in steps
    before = steps[: next(number for number, (_, rest) in enumerate(steps) if "pip install" in rest)]
    assert any("score_sde_jax/version.py" in rest for _, rest in before)  # the build reads it
    install = next(rest for kind, rest in steps if kind == "RUN" and "pip install" in rest)
    assert '-c constraints.txt -e ".${EXTRA:+[$EXTRA]}"' in install
    assert kinds.count("USER") == 1 and dict(steps)["USER"] == "trainer"
    assert kinds.index("USER") > max(number for number, kind in enumerate(kinds) if kind in ("RUN", "COPY"))
    assert dict(steps)["ENTRYPOINT"] == '["python", "main.py"]'
    copied = {name for kind, rest in steps if kind == "COPY" for name in rest.split()[:-1]}
    admitted = (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in admitted
    assert {line[1:] for line in admitted if line.startswith("!")} == {name.partition("/")[0] for name in copied}
    assert copied >= {"main.py", "configs", "score_sde_jax", "pyproject.toml", "constraints.txt", "README.md"}
    assert all((ROOT / name).exists() for name in copied)
