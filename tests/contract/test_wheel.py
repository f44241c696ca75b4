"""What is installed: the package with its config groups, its types and its license, and nothing of the
checkout is needed.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_brings_the_config_groups_its_types_and_its_license(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("raystack_ml-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    groups = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    installed = tmp_path / "installed" / "raystack"
    assert (installed / "py.typed").is_file()
    assert (installed / "kuberay" / "lint" / "schemas" / "kuberay.json").is_file()
    (license,) = (tmp_path / "installed").glob("raystack_ml-*.dist-info/licenses/LICENSE")
    assert license.read_text().splitlines()[1].strip() == "Apache License"
    assert {
        path.relative_to(installed / "configs") for path in (installed / "configs").rglob("*.yaml")
    } == groups
    (tmp_path / "mine.yaml").write_text((ROOT / "tests" / "tiny" / "config.yaml").read_text())
    code = f"""
import sys
sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]
sys.path.insert(0, {str(tmp_path / "installed")!r})
import raystack.config
print(raystack.__file__, raystack.config.load("mine.yaml").experiment.name)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == [str(installed / "__init__.py"), "tiny"], done.stderr
