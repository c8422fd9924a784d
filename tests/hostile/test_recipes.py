"""A hundred hostile images: what the checker says of each, and what a mount of it does."""

from __future__ import annotations

import json
import os

import pytest

from nydusd.build.check import check_image
from tests.hostile.editing import Edit
from tests.hostile.live import Reader, Seen, Watch
from tests.hostile.recipes import RECIPES
from tests.system.control import ask
from tests.system.daemon import v1_config
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

IMAGES = {5: Image(GOLDEN / "v5-none"), 6: Image(GOLDEN / "v6-none")}


def make(recipe, folder):
    """The image of *recipe*: its bootstrap in *folder*."""
    edit = Edit(IMAGES[recipe.version])
    before = bytes(edit.raw)
    recipe.change(edit)
    assert edit.raw != before, "the recipe changes nothing"
    path = folder / "bootstrap"
    path.write_bytes(edit.raw)
    return path


def named(recipe):
    return f"v{recipe.version}: {recipe.name}"


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
def test_the_checker_names_the_fault(recipe, tmp_path):
    findings = check_image(make(recipe, tmp_path)).findings

    assert any(recipe.says in line for line in findings), findings[:5]
    # What a mount would say comes first, whatever else is wrong with the tables.
    assert recipe.says in findings[0] or not recipe.refused


@pytest.mark.root
@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_mount_refuses_each_or_hurts_only_what_is_hurt(
    shared,
    tmp_path,
    now,
    record_property,
):
    daemon, sock = shared
    cache = tmp_path / "cache"
    cache.mkdir()
    watch = Watch(lambda: os.kill(daemon.pid, 9))
    seen = Seen()
    problems = []
    refused = 0
    for number, recipe in enumerate(RECIPES):
        folder = tmp_path / str(number)
        folder.mkdir()
        image = IMAGES[recipe.version]
        config = json.dumps(v1_config(image.blobs, cache, validate=True))
        body = {"fs_type": "rafs", "source": str(make(recipe, folder)), "config": config}
        reply = ask(sock, "POST", "/api/v1/mount", body, mountpoint=f"/{number}")
        if recipe.refused:
            refused += 1
            if reply.status == 204 or recipe.says not in reply.message:
                problems.append(f"{named(recipe)}: {reply}")
            continue
        if reply.status != 204:
            problems.append(f"{named(recipe)}: {reply}")
            continue
        root = daemon.mountpoint / str(number)
        bootstrap = Edit(image).bootstrap
        Reader(watch, seen).read_image(str(root), bootstrap, bootstrap)
        problems += [
            f"{named(recipe)}: {line}"
            for line in differences(root, image.manifest, now)
            if "/" not in recipe.hurt and not line.startswith(tuple(f"'{p}" for p in recipe.hurt))
        ]
        ask(sock, "DELETE", "/api/v1/mount", mountpoint=f"/{number}")
    watch.close()
    problems += watch.slow
    alive = daemon.process.poll() is None
    daemon.stop()
    record_property("hostile", f"{len(RECIPES)} recipes: {refused} refused, the others mounted")

    assert alive
    assert not problems, "\n".join(problems[:20])
    assert daemon.process.returncode == 0, daemon.text
