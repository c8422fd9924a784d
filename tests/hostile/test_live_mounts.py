"""Mutants of v5 and v6 images on a real mount of a real daemon, each listed and read whole.

All are mounted over the control socket of one daemon, which must live through them.
"""

from __future__ import annotations

import json
import os
from random import Random

import pytest

from nydusd.rafs.load import bootstrap_of_bytes
from tests.hostile.live import Reader, Seen, Watch
from tests.hostile.structures import map_v5, map_v6
from tests.hostile.targets import Seed, change_plainly, change_v5
from tests.system.control import ask
from tests.system.daemon import v1_config
from tests.system.images import GOLDEN, Image

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(600)]

MOUNTED = int(os.environ.get("NYDUSD_TEST_MUTANTS", "300"))  # of each version
SEED = 1
AT_A_TIME = 10  # mounts


def seeds(version: int) -> list[tuple[Image, Seed]]:
    """The golden images of one version."""
    found = []
    for folder in sorted(GOLDEN.glob(f"v{version}-*")):
        image = Image(folder)
        data = image.bootstrap.read_bytes()
        inos = [met.ino for met in bootstrap_of_bytes(data, "f").walk()]
        known = map_v5(data) if version == 5 else map_v6(data, inos)
        found.append((image, Seed(folder.name, data, known)))
    return found


@pytest.mark.parametrize("version", [5, 6])
def test_mutants_are_listed_and_read_whole_or_answered_with_an_error(
    shared,
    tmp_path,
    version,
    record_property,
):
    daemon, sock = shared
    made = seeds(version)
    change = change_v5 if version == 5 else change_plainly
    seen = Seen()
    watch = Watch(lambda: os.kill(daemon.pid, 9))
    reader = Reader(watch, seen)
    cache = tmp_path / "cache"
    cache.mkdir()
    mounted = refused = index = 0
    problems: list[str] = []
    while mounted < MOUNTED and not problems:
        batch = []
        for _ in range(AT_A_TIME):
            rng = Random(f"live:{version}:{SEED}:{index}")
            image, seed = rng.choice(made)
            raw = change(seed, rng)
            bootstrap = tmp_path / f"mutant-{index}"
            bootstrap.write_bytes(raw)
            config = v1_config(image.blobs, cache, validate=True)
            config["digest_validate"] = version == 5 and rng.random() < 0.5
            body = {"fs_type": "rafs", "source": str(bootstrap), "config": json.dumps(config)}
            reply = watch.timed(
                f"mount {bootstrap}",
                lambda body=body, path=f"/{index}": ask(
                    sock, "POST", "/api/v1/mount", body, mountpoint=path
                ),
            )
            if reply.status == 204:
                mounted += 1
                batch.append((index, raw, seed))
            else:
                refused += 1
                if not reply.message:
                    problems.append(f"mutant {index} was refused without a reason")
            index += 1
        for number, raw, seed in batch:
            count = len(seen.wrong)
            reader.read_image(
                f"{daemon.mountpoint}/{number}",
                bootstrap_of_bytes(raw, "f"),
                bootstrap_of_bytes(seed.data, "f"),
            )
            problems += [f"mutant {number}: {line}" for line in seen.wrong[count:]]
            reply = ask(sock, "DELETE", "/api/v1/mount", mountpoint=f"/{number}")
            if reply.status != 204:
                problems.append(f"umount of mutant {number}: {reply.body!r}")
            if not problems and not watch.slow:
                (tmp_path / f"mutant-{number}").unlink()
        problems += watch.slow
        if daemon.process.poll() is not None:
            problems.append(f"the daemon ended with {daemon.process.returncode}")
    watch.close()
    daemon.stop()

    told = (
        f"{mounted} mutants of v{version} mounted, {refused} refused: {seen.names} names, "
        f"{seen.files} files, {seen.verified} chunks verified, errors {dict(seen.errors)}"
    )
    record_property("hostile", told)
    assert not problems, "\n".join([told, *problems[:20], daemon.text[-2000:]])
    assert daemon.process.returncode == 0, daemon.text[-2000:]
    assert seen.errors, "no mutant was broken"
    assert seen.verified > mounted
