"""Environments, and nothing else: what a session does, and in which order, is in the packages that it calls.

    nox -s build_primary                                  the miniature, from speech to a verified bundle
    nox -s build_primary -- --campaign iwslt26 --data DIR the competition system
    nox -s tests                                          the tests
    nox -l                                                everything else

After `--` a build takes --campaign, --recipe, --data and --store, and passes them to every command that
`python -m submission steps` prints. A command's own options are for calling it by itself,
`python -m <package> <verb> --help`.
"""

import shlex
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"  # `requires` between sessions and nox.project.dependency_groups
nox.options.sessions = ["build_primary"]
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHON = Path(".nox", "build_env", "bin", "python").absolute()

# Environment -> the dependency groups of pyproject.toml that it holds.
ENVIRONMENTS = {"build": ("build", "test"), "score": ("score",)}


def packages(environment: str) -> tuple[str, ...]:
    """Return the pins of an environment."""
    return nox.project.dependency_groups(PROJECT, *ENVIRONMENTS[environment])


def install(session: nox.Session, environment: str) -> None:
    """Install an environment's pins, and what they bring along at the versions of its lock."""
    session.install("--quiet", "--constraint", f"locks/{environment}.txt", *packages(environment))


def run_steps(session: nox.Session, *words: str) -> None:
    """Run what `python -m submission steps` prints for these arguments, in the build environment."""
    printed = session.run(PYTHON, "-m", "submission", "steps", *words, silent=True, stderr=None, external=True)
    for line in (printed or "").splitlines():
        session.run(PYTHON, *shlex.split(line)[1:], external=True)


@nox.session(default=False)
def build_env(session: nox.Session) -> None:
    """Make the build environment, which builds and tests share."""
    install(session, "build")


@nox.session(python=False, requires=["build_env"])
def build_primary(session: nox.Session) -> None:
    """Build and verify the primary system."""
    run_steps(session, "--recipe", "primary", *session.posargs)


@nox.session(python=False, requires=["build_env"])
def build_contrastive(session: nox.Session) -> None:
    """Build and verify the contrastive system; it shares every stage that it can with the primary."""
    run_steps(session, "--recipe", "contrastive", *session.posargs)


@nox.session(python=False, requires=["build_env"])
def report(session: nox.Session) -> None:
    """Make the report: pack and measure every system of the paper, the blind sets, segmentation methods; one page."""
    run_steps(session, "--report", *session.posargs)


@nox.session(python=False, requires=["build_env"], default=False)
def ablate(session: nox.Session) -> None:
    """Run the session `report`: an alias for this release, which the next one drops."""
    session.log("ablate is called report now; this name goes with the next release")
    report(session)


@nox.session(python=False, requires=["build_env"])
def bench(session: nox.Session) -> None:
    """Measure speed and memory against the named peers: solver, sweep, loading, fine-tuning, packed inference."""
    session.run(PYTHON, "-m", "quantize", "bench", external=True, success_codes=[0, 1])  # 1: a bar is missed
    run_steps(session, "--recipe", "finetuned", "--until", "corpus")
    session.run(PYTHON, "-m", "train", "bench", "--recipe", "finetuned", external=True)
    run_steps(session, "--recipe", "contrastive", "--until", "pack")
    session.run(PYTHON, "-m", "evaluate", "bench", "--recipe", "contrastive", external=True, success_codes=[0, 1])


@nox.session(python=False, requires=["build_env"])
def rehearse(session: nox.Session) -> None:
    """Pack a model of Qwen2-Audio-7B's shape with random weights: nox -s rehearse -- --layers 2."""
    session.run(PYTHON, "-m", "quantize", "rehearse", *session.posargs, external=True)


@nox.session(python=False)
def verify(session: nox.Session) -> None:
    """Check a bundle: nox -s verify -- dist/miniature-primary. Needs no environment at all."""
    session.run(sys.executable, "-m", "submission", "verify", *session.posargs, external=True)


@nox.session(python=False, requires=["build_env"])
def rerun(session: nox.Session) -> None:
    """Decode a bundle again, offline: nox -s rerun -- --bundle DIR --audio DIR --pair en-de --out DIR."""
    session.run(PYTHON, "-m", "evaluate", "rerun", *session.posargs, external=True)


@nox.session(python=False, requires=["build_env"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after -- go to pytest."""
    session.run(PYTHON, "-m", "pytest", *session.posargs, external=True)


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("--quiet", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(requires=["build_env"], default=False)
def score(session: nox.Session) -> None:
    """Add COMET's figures to a built system, nox -s score -- --comet DIR, or to the report, … -- report --comet DIR.

    In an environment of its own, because its needs and those of the build contradict.
    """
    install(session, "score")
    if session.posargs[:1] == ["report"]:
        session.run("python", "-m", "evaluate", "comet", "--report", *session.posargs[1:])
        session.run(PYTHON, "-m", "evaluate", "report", *session.posargs[1:], external=True)
        return
    session.run("python", "-m", "evaluate", "comet", *session.posargs)
    run_steps(session, "--from", "bundle", *session.posargs)


@nox.session(default=False, reuse_venv=False)
@nox.parametrize("environment", sorted(ENVIRONMENTS))
def lock(session: nox.Session, environment: str) -> None:
    """Write locks/<environment>.txt: the versions that the pins bring along today."""
    session.install(*packages(environment))
    # torch is pinned already, and its listed version names the CPU build, which other machines lack.
    listing = ("pip", "list", "--format=freeze", "--exclude=pip", "--exclude=torch")
    with Path("locks", f"{environment}.txt").open("w", encoding="utf-8", newline="\n") as file:
        session.run("python", "-m", *listing, stdout=file, stderr=None)


@nox.session(python=False, requires=["build_env"], default=False)
def shas_parity(session: nox.Session) -> None:
    """Compare segmentation with the published SHAS code, which is cloned for it: needs a network, or -- --clone DIR."""
    session.run(PYTHON, "tests/segment/parity.py", *session.posargs, external=True)
