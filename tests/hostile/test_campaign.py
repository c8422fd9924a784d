"""The campaign itself: it repeats itself exactly, covers its targets, and sees what goes wrong."""

from __future__ import annotations

import os
import time
from random import Random

import pytest

from tests.hostile import campaign, targets


def input_of(name: str, seed: int, index: int) -> bytes:
    return targets.BY_NAME[name].input(Random(f"{name}:{seed}:{index}"))[1]


@pytest.mark.parametrize("name", targets.BY_NAME)
def test_an_input_follows_from_target_seed_and_number(name):
    first = [input_of(name, 1, index) for index in range(30)]

    assert first == [input_of(name, 1, index) for index in range(30)]
    assert first != [input_of(name, 2, index) for index in range(30)]


@pytest.mark.parametrize("name", targets.BY_NAME)
def test_an_unchanged_seed_comes_past_the_first_checks(name, caplog):
    target = targets.BY_NAME[name]
    seeds = target.seeds()

    assert seeds
    for seed in seeds:
        assert any(target.run(seed.data, seed, Random(number)) for number in range(10)), seed.name


def test_every_input_of_a_campaign_is_one_of_a_target():
    planned = campaign.plan(1000, None)

    chosen = [campaign.which(number, planned) for number in range(sum(n for _, n in planned))]

    assert len(set(chosen)) == len(chosen) >= 1000


def broken(monkeypatch, run):
    """A campaign of ten inputs for a parser that does *run* at the sixth."""
    target = targets.BY_NAME["chunk map"]

    def sixth(raw, seed, rng):
        return run() if raw == input_of("chunk map", 1, 5) else True

    monkeypatch.setattr(target, "run", sixth)
    return [campaign.run_one("chunk map", 1, index)[1] for index in range(10)]


def raise_key_error():
    raise KeyError("not ours")


def burn_cpu():
    until = time.process_time() + campaign.CPU_SECONDS_MAX + 0.1
    while time.process_time() < until:
        pass
    return True


@pytest.mark.parametrize(("run", "said"), [(raise_key_error, "KeyError"), (burn_cpu, "of CPU")])
def test_a_wrong_answer_is_a_failure_of_its_input_alone(monkeypatch, run, said):
    told = broken(monkeypatch, run)

    assert said in told[5]
    assert [line for line in told if line] == [told[5]]


@pytest.mark.parametrize(
    ("do", "said"), [("os.abort()", "worker ended with -6"), ("os._exit(0)", "worker ended with 0")]
)
def test_a_dead_worker_is_a_failure_and_the_others_inputs_go_on(
    monkeypatch, tmp_path, capsys, do, said
):
    script = tmp_path / "sitecustomize.py"
    script.write_text(
        "import os, sys\n"
        "if '--work' in getattr(sys, 'orig_argv', ()):\n"
        "    from tests.hostile import targets\n"
        "    target = targets.BY_NAME['chunk map']\n"
        "    good, calls = target.run, []\n"
        "    def run(raw, seed, rng):\n"
        "        calls.append(1)\n"
        f"        if len(calls) == 3 and '--first 0' in ' '.join(sys.orig_argv): {do}\n"
        "        return good(raw, seed, rng)\n"
        "    target.run = run\n"
    )
    root = str(targets.GOLDEN.parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))
    monkeypatch.setattr(campaign, "KEPT", tmp_path / "kept")

    status = campaign.main(["--inputs", "10", "--only", "chunk map", "--jobs", "1"])

    told = capsys.readouterr().out
    assert status == 1
    assert said in told
    assert '"index": 2' in told
    assert (tmp_path / "kept" / "chunk-map-1-2").read_bytes() == input_of("chunk map", 1, 2)
    assert "hostile inputs: 9 of" in told
