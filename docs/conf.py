"""The documentation site: settings of Sphinx, and its pages of the public names.

Nothing is fetched, and nothing of a notebook or an example is run, unless ``EXECUTE=1`` is in the
environment.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent)]

import onelip  # noqa: E402

EXECUTE = os.environ.get("EXECUTE", "0") == "1"
if EXECUTE:  # ``onelip`` in a cell is the one beside this file
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(HERE.parent / "src")

project, author, release = "onelip", "The onelip authors", onelip.__version__
copyright = "2026, The onelip authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery/*.ipynb", "**.ipynb_checkpoints"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}

myst_enable_extensions = ["attrs_block", "attrs_inline", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force" if EXECUTE else "off"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
add_module_names = False
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_rtype, napoleon_use_ivar = False, True

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "plot_gallery": EXECUTE,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "default_thumb_file": str(HERE / "_static" / "cone.png"),
    "min_reported_time": 1,
}

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "onelip"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = "_static/cone.svg"
html_favicon = "_static/cone.svg"
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6e63", "color-brand-content": "#0b6e63"},
    "dark_css_variables": {"color-brand-primary": "#5fd4c4", "color-brand-content": "#5fd4c4"},
}

PACKAGES = {
    "onelip": "Load, bound, certify, prove, save: what most programs need.",
    "onelip.layers": "Layers with a proved constant, one published method each.",
    "onelip.losses": "Losses that make certified radii large.",
    "onelip.models": "Networks of papers, and their parts.",
    "onelip.parametrize": "Constraints on layers of torch.",
    "onelip.optim": "An optimiser of orthogonal matrices.",
    "onelip.bounds": "Proved constants of whole networks, one object for each method.",
    "onelip.certificates": "From proved constants to radii.",
    "onelip.norms": "Proved norms of linear maps.",
    "onelip.attacks": "Attacks, which bound what is true from the other side.",
    "onelip.data": "Data sets, and images and tables of your own.",
    "onelip.experiments.classification": "Runs: train, certify, attack, export.",
    "onelip.sklearn": "Estimators of scikit-learn.",
    "onelip.transport": "Wasserstein-1 distances from below.",
    "onelip.flows": "Layers as steps in time of a flow.",
    "onelip.reading": "Networks from modules and files.",
    "onelip.proofs": "Bundles for a checker that trusts nobody.",
    "onelip.hub": "Certified runs as repositories of a hub.",
    "onelip.chains": "A network as blocks of linear maps and activations.",
    "onelip.activations": "What is proved of elementwise functions.",
    "onelip.lipschitz": "The contract of a layer, and of a class of your own.",
    "onelip.estimates": "Estimates, for training and from below; never in a certificate.",
    "onelip.forward_error": "Rounding, counted.",
    "onelip.testing": "The contract as tests, for layers of your own.",
    "onelip.errors": "What is raised.",
}


FACT = re.compile(r"(Bound|Shape|Cost|Reference|References|Source|Rounding|Units): ")


def public_names(package: str) -> list[str]:
    """Return the names that a package makes public, or those that a module defines."""
    module = importlib.import_module(package)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == package
    ]
    return [
        name
        for name in getattr(module, "__all__", own)
        if not inspect.ismodule(getattr(module, name)) and getattr(module, name).__doc__
    ]


def page_of(package: str) -> str:
    """Return the page of a package in reStructuredText."""
    lines = [package, "=" * len(package), "", f".. automodule:: {package}", "   :no-index:", ""]
    module = importlib.import_module(package)
    for name in public_names(package):
        value = getattr(module, name)
        lines += [name, "-" * len(name), ""]
        if package != "onelip" and name in onelip.__all__:
            lines += [f"It is :py:obj:`onelip.{name}`.", ""]
            continue
        if inspect.isclass(value):
            lines += [f".. autoclass:: {package}.{name}", "   :members:"]
            lines += ["   :exclude-members: set_fit_request, set_score_request"]
        elif callable(value):
            lines += [f".. autofunction:: {package}.{name}"]
        else:
            lines += [f".. py:data:: {package}.{name}"]
        lines += ["", *contents_of(value), ""]
    return "\n".join(lines)


def contents_of(value: object) -> list[str]:
    """Return what a table or a number holds, as lines below its name."""
    if isinstance(value, Mapping):
        names = [getattr(key, "__name__", str(key)) for key in value]
        return ["   A table of " + ", ".join(f"``{name}``" for name in names) + "."]
    return [] if callable(value) else [f"   ``{value!r}``"]


def write_pages(folder: Path) -> None:
    """Write a page for each package, where it differs from the one that is there."""
    folder.mkdir(exist_ok=True)
    index = ["Public names", "============", ""]
    for package, what in PACKAGES.items():
        index += [f":doc:`{package} <{package}>`", f"   {what}", ""]
    index += [".. toctree::", "   :hidden:", "", *(f"   {package}" for package in PACKAGES), ""]
    pages = {package: page_of(package) for package in PACKAGES} | {"index": "\n".join(index)}
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def label_facts(
    _app: Any, _what: str, _name: str, _of: Any, _options: Any, lines: list[str]
) -> None:
    """Turn ``Bound: ...``, ``Shape: ...``, ``Cost: ...`` of a docstring into a list of fields."""
    found: list[str] = []
    inside = False
    for line in lines:
        if begins := FACT.match(line):
            found += [] if inside or not found or not found[-1] else [""]
            inside = True
            found.append(f":{begins[1]}: {line[begins.end() :]}")
        elif inside and line.strip():
            found.append("    " + line.strip())
        else:
            inside = False
            found.append(line)
    lines[:] = found


def to_mathml(translator: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers draw without a script."""
    formula = tex2mathml(node.astext(), as_block=node.tagname == "math_block")
    translator.body.append(formula)
    raise SkipNode


def setup(app: Any) -> None:
    """Write the pages of public names before Sphinx looks for pages."""
    write_pages(HERE / "api")
    app.connect("autodoc-process-docstring", label_facts, priority=400)  # before napoleon
    app.add_html_math_renderer("mathml", (to_mathml, None), (to_mathml, None))
