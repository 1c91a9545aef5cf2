"""What is imported when, and that old modules still hand their names on."""

import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import onelip
from onelip.experiments import classification


def fresh(code):
    """Run in a new process."""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("package", "names"),
    [
        (onelip, {"certify", "layers", "LipschitzModule", "versions", "export", "save"}),
        (classification, {"ClassificationFolder", "Recipe", "train", "certify_run", "plot"}),
    ],
)
def test_names_are_found_when_they_are_asked_for(package, names):
    assert names < {*package.__all__}
    assert {*package.__all__} < {*dir(package)}
    for name in package.__all__:
        assert getattr(package, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'x'"):
        _ = package.x


def test_every_package_for_users_is_offered():
    # of commands and of parts; sklearn is an extra, and its estimators are imported by name
    tools = {"checker", "cli", "experiments", "foreign", "lipschitz", "sklearn"}
    tools |= {"sklearn"}  # needs scikit-learn, so its users import it themselves
    packages = {path.parent.name for path in Path(onelip.__file__).parent.glob("*/__init__.py")}
    assert packages - tools <= {*onelip.__all__}
    assert onelip.__version__ == metadata.version("onelip")


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "recipes",
        "certify --help",
        "bound --help",
        "plot --help",
        "report --help",
        "nonsense",
    ],
)
def test_commands_that_need_no_torch(arguments):
    fresh(
        "import sys\n"
        "from onelip.cli import main\n"
        "try:\n"
        f"    main({arguments.split()})\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert 'torch' not in sys.modules"
    )


def test_recipes_are_data():
    fresh(
        "import sys\n"
        "from onelip.experiments.recipes import RECIPES\n"
        "assert len(RECIPES) > 50\n"
        "assert not {'torch', 'numpy', 'msgspec', 'onelip.data'} & set(sys.modules)"
    )


def test_every_name_without_optional_packages():
    """In a process that has imported nothing else."""
    fresh(
        "import sys\n"
        "import onelip\n"
        "onelip.errors\n"
        "assert 'torch' not in sys.modules\n"
        "from onelip import *\n"
        "assert {*onelip.__all__} < {*globals()}\n"
        "optional = {'lightning', 'jsonargparse', 'msgspec', 'matplotlib', 'onnx', 'scipy'}\n"
        "assert not optional & {*sys.modules}"
    )


@pytest.mark.slow
def test_an_untested_torch_is_told_of_once():
    """Whichever part with proofs is imported first."""
    fresh(
        "import sys, warnings\n"
        "import torch\n"
        "torch.__version__ = '99.0.1'\n"
        f"for name in {sorted({*onelip.__all__} - {'errors', 'versions'})}:\n"
        "    for module in [m for m in sys.modules if m.partition('.')[0] == 'onelip']:\n"
        "        del sys.modules[module]\n"
        "    with warnings.catch_warnings(record=True) as seen:\n"
        "        warnings.simplefilter('always', UserWarning)\n"
        "        import onelip\n"
        "        assert not seen\n"
        "        getattr(onelip, name), onelip.layers, onelip.certify\n"
        "    (warning,) = seen\n"
        "    assert str(warning.message).startswith('onelip is tested with torch'), name\n"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("onelip.training.RunFolder", "onelip.experiments.classification.ClassificationFolder"),
        ("onelip.training.train", "onelip.experiments.classification.train"),
        ("onelip.recipes.RECIPES", "onelip.experiments.recipes.RECIPES"),
        ("onelip.recipes.Recipe", "onelip.experiments.classification.Recipe"),
        ("onelip.evaluation.plot", "onelip.experiments.classification.plot"),
        ("onelip.evaluation.table", "onelip.experiments.classification.table"),
        *(
            (f"onelip.evaluation.{name}", f"onelip.experiments.classification.{name}")
            for name in ("attack_run", "bound_file", "bound_run", "bound_text", "certify_run")
        ),
        ("onelip.evaluation.format_eps", "onelip.experiments.classification.format_eps"),
        (
            "onelip.evaluation.plot_singular_values",
            "onelip.experiments.classification.plot_singular_values",
        ),
        (
            "onelip.evaluation.plot_trajectories",
            "onelip.experiments.trajectories.plot_trajectories",
        ),
    ],
)
def test_old_names_are_handed_on_with_a_warning(old, new):
    module, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"^{old} is {new} now$") as seen:
        found = getattr(importlib.import_module(module), name)
    assert [warning.filename for warning in seen] == [__file__]
    home, _, name = new.rpartition(".")
    assert found is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize("module", ["training", "evaluation", "recipes"])
def test_other_old_names_are_gone(module):
    with pytest.raises(AttributeError, match=f"module 'onelip.{module}' has no attribute 'x'"):
        _ = importlib.import_module(f"onelip.{module}").x
