"""local.sh: its processes, their flags and devices, and their common end."""

import os
import re
import signal

import pytest
from shells import LAUNCH, MAIN, eventually, finish, started

COORDINATION = "--coordinator_address=127.0.0.1:12345 --num_processes=2 --process_id={}"


def test_local_dry_run_of_cpu_processes(shell):
    status, out, err = shell.run(
        "local.sh",
        *("--processes=2", "--devices=4", "--port=12345", "--dry-run", "--", *MAIN, "--workdir=a b"),
        XLA_FLAGS="--xla_other",
    )
    flags = "'XLA_FLAGS=--xla_other --xla_force_host_platform_device_count=4'"
    command = f"env JAX_PLATFORMS=cpu {flags} python main.py --config=c.py '--workdir=a b' {COORDINATION}\n"
    assert (status, err) == (0, "")
    assert out == command.format(0) + command.format(1)


@pytest.mark.parametrize("visible, gpus", [(None, "01"), ("5,3,1", "53")])
def test_local_dry_run_takes_a_gpu_each(shell, visible, gpus):
    variables = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    status, out, err = shell.run("local.sh", "--processes=2", "--port=12345", "--dry-run", *MAIN, **variables)
    command = f"env CUDA_VISIBLE_DEVICES={{}} python main.py --config=c.py {COORDINATION}\n"
    assert (status, err) == (0, "")
    assert out == command.format(gpus[0], 0) + command.format(gpus[1], 1)


def test_local_gives_every_process_its_flags_and_devices(shell, program):
    status, out, err = shell.run("local.sh", "--processes=3", "--devices=2", "--", *program)
    assert (status, err) == (0, "")
    ports = set()
    for number in range(3):
        prefix = f"[{number}] "
        flags, environment = [line.removeprefix(prefix) for line in out.splitlines() if line.startswith(prefix)]
        match = re.fullmatch(
            rf"flags --dir=\S+ --coordinator_address=127\.0\.0\.1:(\d+) --num_processes=3 --process_id={number}", flags
        )
        assert match, flags
        ports.add(int(match[1]))
        assert environment == "environment None cpu --xla_force_host_platform_device_count=2"
    assert len(ports) == 1 and 20000 <= ports.pop() < 32000


def test_local_asks_the_driver_for_gpus(shell, program):
    shell.fake("nvidia-smi", "echo 0; echo 1")
    status, out, err = shell.run("local.sh", "--processes=2", "--", *program)
    assert (status, err) == (0, "")
    assert "[0] environment 0 None None\n" in out and "[1] environment 1 None None\n" in out
    assert shell.calls("nvidia-smi") == [["--query-gpu=index", "--format=csv,noheader"]]
    status, _, err = shell.run("local.sh", "--processes=3", "--", *program)
    assert status == 2 and "2 are visible" in err


@pytest.mark.parametrize("sent, received", [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGHUP", "SIGTERM")])
def test_local_forwards_signals(shell, program, sent, received):
    if signal.getsignal(signal.Signals[sent]) is signal.SIG_IGN:
        pytest.skip(f"{sent} is ignored, as below nohup, and a shell cannot change that")
    process = shell.start("local.sh", "--processes=2", "--devices=1", "--", *program, "--sleep=600")
    eventually(lambda: started(shell) == 2)
    os.killpg(process.pid, signal.Signals[sent])  # the whole group, as the terminal does
    status, out, err = finish(process)
    assert status == 128 + signal.Signals[received]
    assert f"[0] saved on {received}\n" in out and f"[1] saved on {received}\n" in out
    assert err == ""


def test_local_stops_the_others_when_one_fails(shell, program):
    status, out, err = shell.run("local.sh", "--processes=3", "--devices=1", "--", *program, "--sleep=600", "--fails=1")
    assert status == 7
    assert err == "process 1 ended with status 7; stopping the others\n"
    assert "[0] saved on SIGTERM\n" in out and "[2] saved on SIGTERM\n" in out


def test_local_kills_what_does_not_stop(shell, program):
    status, out, err = shell.run(
        "local.sh", "--processes=2", "--devices=1", "--grace=0", "--", *program, "--sleep=600", "--fails=0", "--deaf=1"
    )
    assert status == 7 and "saved" not in out
    assert err.startswith("process 0 ended with status 7; stopping the others\n")


def test_local_ends_after_the_last_line(shell):
    shell.fake("sed", 'sleep 0.3; exec /usr/bin/sed "$@"')
    shell.fake("wrapper", '"$@"; echo end')
    command = (str(LAUNCH / "local.sh"), "--processes=1", "--devices=1", "--", "echo", "line")
    status, out, _ = shell.run(shell.bin / "wrapper", *command)
    assert status == 0 and re.fullmatch(r"\[0\] line [^\n]*\nend\n", out)


def test_local_reports_processes_that_end_at_once(shell):
    for command, expected in (("true", 0), ("false", 1)):
        assert shell.run("local.sh", "--processes=3", "--devices=1", "--", command)[0] == expected
