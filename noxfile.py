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
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"  # `requires` between sessions and nox.project.dependency_groups
nox.options.sessions = ["build_primary"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "uv|virtualenv"  # uv where it is installed: the same files, sooner

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHON = Path(".nox", "build_env", "bin", "python").absolute()

# Environment -> the dependency groups of pyproject.toml that it holds.
ENVIRONMENTS = {
    "build": ("build", "test"),
    "score": ("score",),
    "lint": ("lint",),
    "types": ("types",),
    "docs": ("docs",),
    "lm": ("lm",),
    "peer": ("peer",),
    "rehearsal": ("rehearsal",),
    "package": ("package",),
}
ADDED = ("lm", "rehearsal")  # without what they bring along: the build environment has it, or nothing needs it
# Which file of torch fits depends on the machine (CPU or CUDA), so that no lock can hold its hash: it is pinned by its
# version, and installed last, when what it needs is there; a CUDA build brings the rest along.
TORCH = "torch=="
CUDA_PACKAGES = ("cuda-", "nvidia-", "torch==", "triton==")
# Tests on up to four processors, a module in one process: there it shares what it builds. A process takes 1 to 3 GiB.
# In the order of the names: sorted by their numbers of tests, the modules of a few long ones would come last.
SIDE_BY_SIDE = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile", "--no-loadscope-reorder")


def packages(environment: str) -> tuple[str, ...]:
    """Return the pins of an environment."""
    return nox.project.dependency_groups(PROJECT, *ENVIRONMENTS[environment])


def install(session: nox.Session, environment: str) -> None:
    """Install an environment's lock, every file checked against its hash, and torch where the environment has it."""
    session.install("--quiet", "--no-deps", "--require-hashes", "--requirement", f"locks/{environment}.txt")
    for pin in packages(environment):
        if pin.startswith(TORCH):
            session.install("--quiet", pin)


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
def pareto(session: nox.Session) -> None:
    """Make the report with the recipe frontier at given sizes: nox -s pareto -- --targets 2.5GB,3GB,3.5GB."""
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


@nox.session(default=False)
def peer_env(session: nox.Session) -> None:
    """Make the environment of llm-compressor, whose GPTQ bench_lm is compared with."""
    install(session, "peer")


@nox.session(requires=["peer_env"], default=False)
def bench_lm(session: nox.Session) -> None:
    """Measure quality per byte on a real language model: nox -s bench_lm -- --text FILE --calibration FILE [ROW ...].

    In an environment of its own: the build's packages and the model's, which nothing else needs. The peer's is another.
    """
    install(session, "build")
    install(session, "lm")
    work = ("--work", "build/bench_lm")
    session.run("python", "-m", "quantize.bench.language_model", *work, *session.posargs)


@nox.session(requires=["build_env"], default=False)
def rehearse(session: nox.Session) -> None:
    """Run a whole campaign on random weights and synthetic speech in published layouts: nox -s rehearse -- --layers 2.

    The session's environment holds Qwen's vocabulary and nothing that runs. With --campaign, pack a checkpoint shaped
    like that campaign's base model alone, all of it or some --layers: nox -s rehearse -- --campaign iwslt27 --layers 6.
    """
    if any(word.partition("=")[0] == "--campaign" for word in session.posargs):
        session.run(PYTHON, "-m", "quantize", "rehearse", *session.posargs, external=True)
        return
    install(session, "rehearsal")
    vocabulary = next(Path(session.virtualenv.location).rglob("qwen.tiktoken"))
    command = ("-m", "evaluate", "rehearse", "--vocabulary", str(vocabulary))
    session.run(PYTHON, *command, *session.posargs, external=True)


@nox.session(python=False, requires=["build_env"], default=False)
def gpu_check(session: nox.Session) -> None:
    """Check and measure on one GPU all that a campaign does there; says so and ends where there is none."""
    session.run(PYTHON, "-m", "evaluate", "gpu_check", *session.posargs, external=True)


@nox.session(python=False)
def verify(session: nox.Session) -> None:
    """Check a bundle: nox -s verify -- dist/miniature-primary. Needs no environment at all."""
    session.run(sys.executable, "-m", "submission", "verify", *session.posargs, external=True)


@nox.session(python=False, requires=["build_env"])
def rerun(session: nox.Session) -> None:
    """Decode a bundle again, offline: nox -s rerun -- --bundle DIR --audio DIR --pair en-de --out DIR."""
    session.run(PYTHON, "-m", "evaluate", "rerun", *session.posargs, external=True)


@nox.session(python=False)
def package(session: nox.Session) -> None:
    """Write a package that runs a bundle anywhere: nox -s package -- dist/miniature-primary. Needs no environment."""
    session.run(sys.executable, "-m", "submission", "package", *session.posargs, external=True)


@nox.session(python=False, requires=["build_env"])
def tests(session: nox.Session) -> None:
    """Run the tests, modules side by side; arguments after -- go to pytest: -n 0 runs them in turn, for --pdb."""
    session.run(PYTHON, "-m", "pytest", *SIDE_BY_SIDE, *session.posargs, external=True)


@nox.session(python=False, requires=["build_env"], default=False)
def fuzz(session: nox.Session) -> None:
    """Verify 100,000 bundles broken at random, and run 2,000 clean mutants again, for a night; a killed run resumes.

    The numbers of failing cases are printed. Arguments after -- go to both: nox -s fuzz -- --first 100000.
    """
    work = ("--work", "build/fuzz")
    fuzzers = {"tests.submission.bundle_fuzzing": "100000", "tests.evaluate.rerun_fuzzing": "2000"}
    for module, cases in fuzzers.items():
        command = ("-m", module, *work, "--cases", cases, *session.posargs)
        session.run(PYTHON, *command, external=True, success_codes=[0, 1])  # 1: cases failed, which are printed


@nox.session(python=False, requires=["build_env"], default=False)
def coverage(session: nox.Session) -> None:
    """Run the tests and hold the floor of branch coverage; pyproject.toml says which lines are left out, and why."""
    shutil.rmtree("build/coverage", ignore_errors=True)
    session.run(PYTHON, "-m", "coverage", "run", "-m", "pytest", *SIDE_BY_SIDE, *session.posargs, external=True)
    session.run(PYTHON, "-m", "coverage", "combine", "--quiet", external=True)
    session.run(PYTHON, "-m", "coverage", "report", external=True)


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style, names, docstrings and formatting."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(requires=["build_env"], default=False)
def types(session: nox.Session) -> None:
    """Check types, strictly, with the libraries of the build environment."""
    install(session, "types")
    session.run("mypy", "--python-executable", str(PYTHON))


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation site in build/site; a warning is an error."""
    install(session, "docs")
    # Both variables silence notices about the future of mkdocs, which are no findings about these pages.
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    session.run("mkdocs", "build", "--quiet", "--strict", env=quiet)


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
    """Write locks/<environment>.txt: the versions that the pins bring along today, each file's hash beside it."""
    session.install("--quiet", *(["--no-deps"] if environment in ADDED else []), *packages(environment))
    listing = session.run("python", "-m", "pip", "list", "--format=freeze", "--exclude=pip", silent=True) or ""
    session.install("--quiet", *nox.project.dependency_groups(PROJECT, "lock"))
    found = Path(session.create_tmp(), "found.txt")
    lines = (line for line in listing.splitlines() if not line.startswith(CUDA_PACKAGES))
    found.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    out = Path(session.invoked_from, "locks", f"{environment}.txt")
    options = ("--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--quiet")
    session.run("uv", "pip", "compile", *options, str(found), "--output-file", str(out))


@nox.session(python=False, requires=["build_env"], default=False)
def shas_parity(session: nox.Session) -> None:
    """Compare segmentation with the published SHAS code, which is cloned for it: needs a network, or -- --clone DIR."""
    session.run(PYTHON, "tests/segment/parity.py", *session.posargs, external=True)
