"""What travels to where a plan runs: the same config and code, whole, under a name that says what it is."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from raystack.code.archive import pack
from raystack.code.bundle import Bundle, bundle, fetch, main
from raystack.config import RunConfig, load
from raystack.config.target import Local
from raystack.errors import LaunchError

CONFIG = """
defaults: [resources: inline, strategy: ddp, tracking: "off", _self_]
experiment: {name: small, storage: s3://bucket/runs}
task: {entry: "net:Task"}
training: {epochs: 1, batch: {global: 8}, optimizer: {kind: sgd, lr: 0.1}}
target: {kind: job, address: "http://there:8265"}
"""


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A config beside its task's folder, which has a package, a hidden file and a cache."""
    home = tmp_path / "home"
    for name, content in (
        ("net.py", "import parts.layer"),
        ("parts/layer.py", "x = 1"),
        (".git/config", "-"),
        ("__pycache__/net.pyc", "-"),
    ):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (home / "config.yaml").write_text(CONFIG)
    return load(home / "config.yaml")


def test_the_config_arrives_as_it_was_asked_and_joins_the_ray_around_it(
    config: RunConfig, tmp_path: Path
) -> None:
    made = bundle(config)
    assert set(made.files) == {"config.yaml", "task/net.py", "task/parts/layer.py", "task/config.yaml"}
    made.write(tmp_path / "there")
    found = load(tmp_path / "there" / "config.yaml")
    assert found.target == Local(address="auto")
    assert found.task.folder == str(tmp_path / "there" / "task")
    assert found.model_copy(update={"target": config.target, "task": config.task}) == config
    assert pack(found.task.folder) == pack(str(config.task.folder))


def test_a_digest_is_of_paths_and_contents_and_of_nothing_else(config: RunConfig) -> None:
    made, again = bundle(config), bundle(config)
    assert (made.digest, made.tar(), made.zip()) == (again.digest, again.tar(), again.zip())
    ways = [{"a": b"bc"}, {"ab": b"c"}, {"a": b"b", "c": b""}, {"a": b"", "b": b"c"}]
    assert len({Bundle(files).digest for files in ways}) == len(ways)
    assert Bundle({"a": b"1", "b": b"2"}).digest == Bundle({"b": b"2", "a": b"1"}).digest


@pytest.mark.parametrize("place", ["local", "memory"])
def test_what_was_put_into_a_store_is_fetched_whole(
    place: str, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store") if place == "local" else f"memory://{tmp_path}/store"
    made = bundle(config)
    url = made.put(store)
    assert url.endswith(f"/store/bundles/{made.digest}.tar")
    assert made.put(store) == url
    assert main(["fetch", url, str(tmp_path / "there")]) == 0
    arrived = {
        path.relative_to(tmp_path / "there").as_posix()
        for path in (tmp_path / "there").rglob("*")
        if path.is_file()
    }
    assert arrived == set(made.files)

    assert (
        main(["fetch", url.replace(made.digest, "0" * 64), str(tmp_path / "nothing")])
        == LaunchError.exit_code
    )
    assert "there is no such bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spoil",
    [
        lambda archive: archive[:700],
        lambda archive: archive.replace(b"x = 1", b"x = 2"),
        lambda archive: b"no archive",
    ],
)
def test_a_bundle_that_is_not_what_its_name_says_is_refused(
    spoil: Callable[[bytes], bytes], config: RunConfig, tmp_path: Path
) -> None:
    url = bundle(config).put(str(tmp_path))
    Path(url).write_bytes(spoil(Path(url).read_bytes()))
    with pytest.raises(LaunchError, match="this bundle is damaged"):
        fetch(url, tmp_path / "there")


def test_a_bundle_writes_nothing_outside_its_folder(tmp_path: Path) -> None:
    url = Bundle({"../escaped": b"-"}).put(str(tmp_path))
    with pytest.raises(LaunchError, match="this bundle is damaged"):
        fetch(url, tmp_path / "there" / "inside")
    assert not (tmp_path / "there").exists()


def test_a_folder_of_symbolic_links_as_kubernetes_mounts_it_is_read_whole(
    config: RunConfig, tmp_path: Path
) -> None:
    made, mount = bundle(config), tmp_path / "mount"
    made.write(mount / "..2026_11_23")
    os.symlink("..2026_11_23", mount / "..data")
    for name in ("config.yaml", "task"):
        os.symlink(f"..data/{name}", mount / name)
    found = load(mount / "config.yaml")
    assert found.task.folder == str(mount / "task")
    assert pack(found.task.folder) == pack(str(config.task.folder))
