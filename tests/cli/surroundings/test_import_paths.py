"""Child processes import what their parent would, whatever else lies about."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from daemon.host.python_child import child_command
from daemon.host.start_child import ROOT, own_path

LIBRARY = sysconfig.get_path("stdlib")
PACKAGES = ("daemon", "ml", "p2pd", "protocol", "transport", "rendezvous", "relay")


def test_standard_library_comes_first_then_p2pd_then_the_rest() -> None:
    path = ["/user", f"{LIBRARY}/lib-dynload", LIBRARY, "/venv/site-packages"]
    assert own_path(path, "/venv/site-packages") == [
        f"{LIBRARY}/lib-dynload",
        LIBRARY,
        "/venv/site-packages",
        "/user",
    ]
    assert own_path(path, "/source")[2:] == ["/source", "/user", "/venv/site-packages"]


def test_users_own_ml_and_daemon_and_a_backport_shadow_nothing(tmp_path: Path) -> None:
    """As on PYTHONPATH and in the working directory: what is there by those names fails loudly."""
    for package in ("ml", "daemon", "protocol"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "dataclasses.py").write_text("raise SystemExit('the wrong dataclasses')\n")
    done = subprocess.run(
        child_command("daemon.cli", "--version"),
        cwd=tmp_path,
        # So that the interpreter itself starts: it imports no dataclasses by then.
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("p2pd ")
    (tmp_path / "dataclasses.py").unlink()
    # What a script imports needs none of the packages that have the user's names.
    script = subprocess.run(
        [sys.executable, "-c", "import p2pd; print(p2pd.join.__name__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (script.returncode, script.stdout) == (0, "join\n"), script.stderr


def test_worker_of_an_installed_p2pd_finds_the_standard_library_first(tmp_path: Path) -> None:
    """A copy of p2pd's packages in site-packages, beside a backport of the name of a module."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=150)
    (site,) = venv.glob("lib/python*/site-packages")
    for package in PACKAGES:
        shutil.copytree(
            Path(ROOT) / package, site / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    (site / "dataclasses.py").write_text("raise SystemExit('the backport')\n")
    # What p2pd needs is where it is for this process.
    others = [place for place in sys.path if "site-packages" in place]
    (site / "others.pth").write_text("\n".join(others))
    script = (
        "import subprocess\n"
        "from daemon.host.python_child import child_command\n"
        "subprocess.run(child_command('ml.check_task', '--help'), check=True)\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [venv / "bin" / "python", "-P", "-c", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
