"""The table of steps: the only order of a build, from which commands, plan and hints follow."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from submission.errors import UnavailableError, UserError
from submission.system.campaign import FOLDER as CAMPAIGNS
from submission.system.campaign import read_campaign
from submission.system.pipeline import MEASURED, REPORTED, STEPS, Selection, has_step, step, step_commands
from submission.system.recipe.recipe_files import FOLDER as RECIPES
from submission.system.recipe.recipe_files import read_recipe, read_recipes
from submission.system.revisions import REVISIONS
from submission.system.system import System

ROOT = Path(__file__).parents[3]
SYSTEMS = [(c.stem, r.stem) for c in sorted(CAMPAIGNS.glob("*.toml")) for r in sorted(RECIPES.glob("*.toml"))]


def submission(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "submission", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def printed(*words: str) -> list[str]:
    done = submission("steps", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def names(commands: list[str]) -> list[str]:
    return [" ".join(command.split()[2:4]) for command in commands]


@pytest.mark.parametrize(("campaign", "name"), SYSTEMS)
def test_the_stages_of_a_system_are_those_of_its_steps_in_their_order(campaign, name, tmp_path):
    for recipe in read_recipes(name, campaign):
        try:
            system = System(read_campaign(campaign), recipe, None, tmp_path, arguments="--x")
        except UserError as error:  # the paper's systems that a campaign cannot have; test_recipe lists them
            assert campaign in ("iwslt27", "miniature-gemma4") and name == "ablation", error
            continue
        of_steps = [stage for each in STEPS if each.has(system) for stage in each.stages]
        assert list(dict.fromkeys(stage.name for stage in system.stages())) == of_steps
        for stage in system.stages():
            (each,) = [each for each in STEPS if stage.name in each.stages]
            assert stage.command == f"python -m {each.command} --x"


def test_every_stage_has_a_step_or_is_measured_and_has_a_revision():
    assert {stage for each in STEPS for stage in each.stages} | MEASURED.keys() == REVISIONS.keys()


def test_every_command_of_the_table_is_a_verb_of_its_package():
    for command in {each.command for each in STEPS} | set(MEASURED.values()):
        done = subprocess.run(
            [sys.executable, "-m", *command.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, command


@pytest.mark.parametrize(
    ("recipe", "absent"),
    [
        ("primary", ["calibrate", "allocate", "recover"]),
        ("contrastive", ["awq", "calibrate", "allocate", "recover"]),
        ("finetuned", ["sensitivity", "awq", "calibrate", "allocate", "recover"]),
        ("frontier", ["sensitivity", "awq", "recover"]),
    ],
)
def test_steps_of_quantization_are_those_of_the_systems_that_have_them(recipe, absent, tmp_path):
    system = System(read_campaign("miniature"), read_recipe(recipe, "miniature"), None, tmp_path)
    assert [each.name for each in STEPS if not each.has(system)] == absent
    assert names(printed("--recipe", recipe)) == [each.command for each in STEPS if each.name not in absent]


def test_a_given_data_folder_is_not_made(tmp_path):
    system = System(read_campaign("miniature"), read_recipe("primary", "miniature"), tmp_path, tmp_path)
    assert not has_step(system, "data")


def test_steps_are_printed_from_one_to_another_with_the_arguments_of_the_system():
    assert printed("--recipe", "finetuned", "--from", "corpus", "--until", "merge", "--store", "a b") == [
        f"python -m train {verb} --campaign miniature --recipe finetuned --store 'a b'"
        for verb in ("corpus", "finetune", "merge")
    ]


def test_options_of_the_bundle_are_passed_to_the_commands_that_take_them():
    commands = printed("--from", "score", "--dist", "out", "--comet", "models/comet")
    assert [command.endswith(" --dist out --comet models/comet") for command in commands] == [False, True, True]


def test_steps_are_printed_with_the_standard_library_alone():
    code = "import runpy, sys; sys.argv = ['x', 'steps']; runpy.run_module('submission', run_name='__main__')"
    shown = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-S", "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = {name.partition(".")[0] for name in done.stderr.split()}
    assert modules <= sys.stdlib_module_names | {"submission", "__main__", "__mp_main__"}


def test_an_unknown_step_is_refused_with_the_known_ones():
    done = submission("steps", "--until", "packing")
    assert done.returncode == 2 and "'begin', 'data', 'corpus'" in done.stderr
    with pytest.raises(UserError, match="did you mean 'pack'"):
        step("packing")


@pytest.mark.parametrize("words", [("--from", "score", "--until", "pack"), ("--report", "--from", "decode")])
def test_a_first_step_after_the_last_is_refused(words):
    done = submission("steps", *words)
    assert done.returncode == 2 and done.stdout == "" and "is a step after" in done.stderr, done.stderr


def test_the_systems_of_a_list_share_steps_and_a_command_that_takes_lists_stands_once(tmp_path):
    campaign = read_campaign("miniature")
    systems = tuple(
        System(campaign, recipe, None, tmp_path, arguments=f"--recipe ablation:{recipe.name}")
        for recipe in read_recipes("ablation", "miniature")
    )
    commands = step_commands([Selection(systems=systems, arguments="--recipe ablation")], last="pack", options={})
    first = f"--recipe ablation:{systems[0].recipe.name}"
    assert commands == [
        f"python -m {each.command} {'--recipe ablation' if each.takes_lists else first}"
        for each in STEPS[: [each.name for each in STEPS].index("pack") + 1]
        if any(each.has(system) for system in systems)
    ]


@pytest.mark.parametrize("campaign", ["miniature", "miniature-gemma4"])
def test_the_steps_of_the_report_make_every_model_that_it_measures(tmp_path, campaign):
    commands = printed("--report", "--campaign", campaign)
    assert commands[-1] == f"python -m evaluate report --campaign {campaign} --recipe ablation --store build/store"
    built, measured = set(), set()
    for name in REPORTED:
        for recipe in read_recipes(name, campaign):
            try:
                system = System(read_campaign(campaign), recipe, None, tmp_path)
            except UnavailableError:
                continue  # the report says that it is left out
            measured.add(system.model_stage().key)
            for each in STEPS:
                ran = [c.split() for c in commands if c.startswith(f"python -m {each.command} ")]
                if any(words[words.index("--recipe") + 1] in (name, f"{name}:{recipe.name}") for words in ran):
                    built |= {stage.key for stage in system.stages() if stage.name in each.stages}
    assert measured <= built


def test_the_noxfile_runs_no_step_by_its_own_list():
    commands = {each.command for each in STEPS}
    for node in ast.walk(ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Call, ast.Tuple, ast.List)):
            parts = node.args if isinstance(node, ast.Call) else node.elts
            words = [part.value for part in parts if isinstance(part, ast.Constant)]
            assert not commands & {*words, *(f"{one} {two}" for one, two in zip(words, words[1:], strict=False))}


def test_the_version_is_that_of_the_project():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert submission("--version").stdout == f"{project['name']} {project['version']}\n"


def test_the_plan_names_the_command_of_every_stage(tmp_path):
    rows = json.loads(submission("plan", "--json", "--store", str(tmp_path)).stdout)
    commands = {row["stage"]: " ".join(row["command"].split()[2:4]) for row in rows}
    assert commands["sensitivity"] == "quantize sensitivity" and commands["awq"] == "quantize awq"


def test_targets_are_steps_of_the_report_beside_the_other_systems():
    commands = printed("--report", "--targets", "1000kB,1400kB")
    plain = printed("--report")
    assert commands[-1] == f"{plain[-1]} --also frontier@1000kB --also frontier@1400kB"
    added = [command for command in commands[:-1] if command not in plain]
    assert all("frontier@" in command for command in added)
    assert {"allocate", "pack"} == {command.split()[3] for command in added}  # the rest is shared
