"""A host as production has it, in one folder: registry, containerd, the snapshotter, our nydusd.

All sockets, roots and states are below the folder, so that several hosts and the machine's own
containerd do not meet. The programs are real: Debian's containerd, runc and docker-registry,
and containerd-nydus-grpc as prepare.sh builds it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.servers.distribution import Distribution
from tests.system.control import ask, connect

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "build" / "snapshotter"
PROGRAMS = ("containerd", "ctr", "runc", "docker-registry", "busybox")
WAIT_S = 60
LOOK_S = 0.02
NAMESPACE = "default"
BLOB_TYPE = "application/vnd.oci.image.layer.nydus.blob.v1"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"

# containerd's own minimum: the plugin that hands snapshots to the other process.
CONTAINERD_TOML = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/t.sock"
[proxy_plugins.nydus]
  type = "snapshot"
  address = "{folder}/n.sock"
"""

SNAPSHOTTER_TOML = """\
version = 1
root = "{folder}/n"
address = "{folder}/n.sock"
daemon_mode = "{mode}"
[system]
enable = true
address = "{folder}/system.sock"
[daemon]
nydusd_config = "{folder}/nydusd.json"
nydusd_path = "{nydusd}"
nydusimage_path = "/bin/true"
fs_driver = "fusedev"
recover_policy = "{policy}"
threads_number = 4
failover_policy = "resend"
[cgroup]
enable = false
[log]
log_to_stdout = false
level = "info"
[metrics]
address = ""
[remote]
convert_vpc_registry = false
[snapshot]
sync_remove = true
"""


def missing() -> str | None:
    """Why no host can be made here, None when one can."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"needs {program} (Debian packages containerd, runc, docker-registry, busybox)"
    for program in ("containerd-nydus-grpc", "nydus-pull"):
        if not (BUILT / program).exists():
            return f"needs {program}: sh tests/snapshotter/prepare.sh"
    return None


def program_file(folder: Path, command: list[str] | None) -> Path:
    """*command*'s program, or this tree's nydusd as a console script would be installed.

    A name in *folder*: the snapshotter puts a link in the place of a program that was upgraded.
    Options of *command* go behind those of the snapshotter.
    """
    script = folder / "nydusd"
    if command is not None and len(command) == 1:
        script.symlink_to(command[0])
        return script
    if command is not None:
        program, options = shlex.quote(command[0]), shlex.join(command[1:])
        script.write_text(
            f'#!/bin/sh\ncase "$1" in -*) exec {program} "$@" ;; esac\n'
            f'exec {program} "$@" {options}\n'
        )
    else:
        script.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path[:0] = [{str(ROOT)!r}]\n"
            "from nydusd.cli.nydusd import command\ncommand()\n"
        )
    script.chmod(0o755)
    return script


class Host:
    """One host in *folder*; a context manager that leaves neither process nor mount behind."""

    def __init__(
        self, folder: Path, *, mode: str, policy: str, command: list[str] | None = None
    ) -> None:
        assert len(str(folder)) < 60, "the sockets' paths would be too long"
        self.folder = folder
        self.settings = {
            "folder": folder,
            "mode": mode,
            "policy": policy,
            "nydusd": program_file(folder, command),
        }
        self.root = folder / "n"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Host:
        (self.folder / "containerd.toml").write_text(CONTAINERD_TOML.format(**self.settings))
        (self.folder / "snapshotter.toml").write_text(SNAPSHOTTER_TOML.format(**self.settings))
        (self.folder / "nydusd.json").write_text(json.dumps(nydusd_template()))
        self.registry = Distribution(self.folder / "registry")
        self.registry.start()
        self.start_snapshotter()
        self._run("containerd", ["containerd", "-c", str(self.folder / "containerd.toml")])
        self._await(lambda: self.ctr("version", check=False).returncode == 0, "containerd")
        self._await_connection()
        return self

    def __exit__(self, *exc: object) -> None:
        # What is left of containers first: their mounts lie over the daemons' mounts.
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            for line in self.ctr("task", "ls", "-q", check=False).stdout.split():
                self.ctr("task", "rm", "-f", line, check=False)
        for name in ("containerd", "snapshotter"):
            self.stop(name)
        for pid in self.daemon_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for target in reversed(mounts_below(self.folder)):
            subprocess.run(["umount", "-l", target], check=False, stderr=subprocess.DEVNULL)
        for pid in self.daemon_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.registry.stop()

    # --- programs

    def _run(self, name: str, argv: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start_snapshotter(self) -> None:
        """Start it and wait until it serves."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / "n.sock").unlink()
        program = str(BUILT / "containerd-nydus-grpc")
        self._run("snapshotter", [program, "--config", str(self.folder / "snapshotter.toml")])
        self._await(lambda: listens(self.folder / "n.sock"), "snapshotter")
        if "containerd" in self.processes:
            self._await_connection()

    def _await_connection(self) -> None:
        """Wait until containerd's calls reach the snapshotter.

        After an attempt that was refused its client rests for a second or more and fails all
        calls at once. Only a call that is passed on shows the end of that: containerd answers
        from its own database whatever it can, a list without entries as well.
        """
        snapshot = ("snapshot", "--snapshotter", "nydus")
        prepare = (*snapshot, "prepare", "connected")
        self._await(lambda: self.ctr(*prepare, check=False).returncode == 0, "connected")
        self.ctr(*snapshot, "rm", "connected")

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End one of the host's services."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await(self, is_so: Any, what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not is_so():
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended: {self.logs()}"
            assert time.monotonic() < deadline, f"{what}: not so. {self.logs()}"
            time.sleep(LOOK_S)

    def logs(self) -> str:
        """The last lines of all programs."""
        text = ""
        for log in [*self.folder.glob("*.log"), *self.folder.glob("n/logs/**/*.log")]:
            text += f"\n--- {log.name}\n" + log.read_text(errors="replace")[-4000:]
        return text

    # --- what a user does

    def ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command of Debian's ctr."""
        done = subprocess.run(
            ["ctr", "-a", str(self.folder / "c.sock"), "-n", NAMESPACE, *words],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"ctr {words}: {done.stderr} {self.logs()}"
        return done

    def pull(self, reference: str) -> None:
        """Pull through the snapshotter."""
        done = subprocess.run(
            [str(BUILT / "nydus-pull"), str(self.folder / "c.sock"), reference],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.returncode == 0, f"pull {reference}: {done.stderr} {self.logs()}"

    def run(self, reference: str, name: str, *command: str) -> str:
        """What a new container prints before it ends."""
        runs = ("run", "--rm", "--snapshotter", "nydus", reference, container(name), *command)
        return self.ctr(*runs).stdout

    def run_detached(self, reference: str, name: str, *command: str) -> None:
        """Start a container that goes on."""
        self.ctr("run", "-d", "--snapshotter", "nydus", reference, container(name), *command)

    def execute(self, name: str, number: int, *command: str) -> str:
        """What a command prints in a running container."""
        words = ("task", "exec", "--exec-id", f"e{number}", container(name), *command)
        return self.ctr(*words).stdout

    def prepare(self, reference: str) -> Path:
        """Have the image of *reference* mounted, without a container; where."""
        rows = self.ctr("snapshot", "--snapshotter", "nydus", "ls").stdout.splitlines()[1:]
        parents = {row.split()[1] for row in rows if len(row.split()) == 3}
        (top,) = {row.split()[0] for row in rows} - parents
        self.ctr("snapshot", "--snapshotter", "nydus", "prepare", "looked-at", top)
        (daemon,) = self.daemons()
        found = [i for i in daemon["instances"].values() if i["image_id"] == reference]
        return Path(found[0]["mountpoint"])

    def remove(self, name: str) -> None:
        """End a container and take its snapshot away."""
        self.ctr("task", "rm", "-f", container(name), check=False)
        self.ctr("container", "rm", container(name))

    def remove_image(self, reference: str) -> None:
        """Take an image away, and what it alone had."""
        self.ctr("image", "rm", "--sync", reference)

    # --- what an operator sees

    def daemons(self) -> list[dict[str, Any]]:
        """The snapshotter's daemons, as its system socket tells them."""
        return ask(self.folder / "system.sock", "GET", "/api/v1/daemons").json or []

    def daemon_pids(self) -> list[int]:
        """Processes of nydusd that serve a mount below the folder."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"--apisock" in words and str(self.root).encode() in b" ".join(words):
                    found.append(int(folder.name))
        return found

    def api_sockets(self) -> list[Path]:
        """The control sockets of daemons."""
        return sorted(self.root.glob("socket/*/api*.sock"))

    def await_daemons(self, count: int, state: str = "RUNNING") -> None:
        """Wait until *count* daemons run and say that they are in *state*."""

        def is_so() -> bool:
            states = [state_of(path) for path in self.api_sockets()]
            return len(self.daemon_pids()) == count and states.count(state) == count

        self._await(is_so, f"{count} daemons {state}")


def container(name: str) -> str:
    """*name* for a container of this process: runc and cgroups know it on the whole machine."""
    return f"{name}-{os.getpid()}"


def state_of(path: Path) -> str | None:
    """The state that a daemon reports, None when it reports nothing."""
    try:
        return str(ask(path, "GET", "/api/v1/daemon").json["state"])
    except (OSError, ValueError, KeyError):
        return None


def listens(path: Path) -> bool:
    """Whether somebody listens on the socket at *path*."""
    try:
        connect(path).close()
    except OSError:
        return False
    return True


def mounts_below(folder: Path) -> list[str]:
    """Mount points below *folder*, in the order they were made."""
    table = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    targets = [line.split(" ")[4] for line in table]
    return [target for target in targets if target.startswith(f"{folder}/")]


def nydusd_template() -> dict[str, Any]:
    """The configuration that snapshotters ship, for a registry without TLS."""
    config = {"scheme": "http", "timeout": 5, "connect_timeout": 5, "retry_limit": 2}
    return {
        "device": {
            "backend": {"type": "registry", "config": config},
            "cache": {"type": "blobcache"},
        },
        "mode": "direct",
        "digest_validate": False,
        "iostats_files": False,
        "enable_xattr": True,
        "amplify_io": 1 << 20,
        "fs_prefetch": {"enable": False},
    }


def pack(tree: Path, folder: Path) -> tuple[Path, Path]:
    """Bootstrap and blob of an image of *tree*."""
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)
    bootstrap = folder / "bootstrap"
    argv = [sys.executable, "-m", "nydusd.cli.nydus_image", "create"]
    argv += ["--bootstrap", str(bootstrap), "--blob-dir", str(blobs), str(tree)]
    subprocess.run(argv, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    (blob,) = blobs.iterdir()
    return bootstrap, blob


def push_image(
    registry: Distribution, repository: str, bootstrap: Path, blob: Path, layer: Path | None = None
) -> str:
    """Push an image as the converter makes them; its reference.

    With *layer*, an OCI layer in gzip, the blob is only the index of that.
    """

    def descriptor(data: bytes, kind: str, **annotations: str) -> dict[str, Any]:
        digest = f"sha256:{registry.push(repository, data)}"
        named = {f"containerd.io/snapshot/{k.replace('_', '-')}": v for k, v in annotations.items()}
        row = {"mediaType": kind, "digest": digest, "size": len(data)}
        return {**row, "annotations": named} if named else row

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.add(bootstrap, "image/image.boot")
    marks = {"nydus_blob": "true"}
    if layer is not None:
        marks["nydus_ref"] = f"sha256:{registry.push(repository, layer.read_bytes())}"
    blob_row = descriptor(blob.read_bytes(), BLOB_TYPE, **marks)
    packed = gzip.compress(plain.getvalue(), mtime=0)
    boot_row = descriptor(packed, LAYER_TYPE, nydus_bootstrap="true", nydus_fs_version="6")
    diffs = [blob_row["digest"], f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(json.dumps(config).encode(), CONFIG_TYPE),
        "layers": [blob_row, boot_row],
    }
    url = f"http://{registry.host}/v2/{repository}/manifests/latest"
    request = urllib.request.Request(url, json.dumps(manifest).encode(), method="PUT")
    request.add_header("Content-Type", MANIFEST_TYPE)
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        assert answer.status == 201
    return f"{registry.host}/{repository}:latest"
